"""When a listener's certificate ends, for an alert before it does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def expiry(path: Path | None) -> Callable[[], float | None]:
    """A reading of the end of the first certificate in ``path``, Unix time.

    It reads again when the file has changed; None without a file, or when it cannot be read.
    """
    seen: tuple[int, float | None] = (-1, None)

    def read() -> float | None:
        nonlocal seen
        if path is None:
            return None
        from cryptography import x509  # noqa: PLC0415 - six megabytes that only those with a certificate pay

        try:
            changed = path.stat().st_mtime_ns
            if changed != seen[0]:
                seen = (changed, x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc.timestamp())
        except (OSError, ValueError):
            return None
        return seen[1]

    return read
