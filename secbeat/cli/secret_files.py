"""Write a secret to a new file: mode 0600 from the first byte, and never over something that is there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from secbeat.errors import ConfigError


@contextmanager
def reserved(path: Path) -> Iterator[Callable[[object], None]]:
    """Take ``path`` before the secret is made; the yielded function writes it as JSON. Undone on an error.

    Raises:
        ConfigError: FILE_EXISTS, FILE_NOT_WRITABLE.
    """
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:
        raise ConfigError("FILE_EXISTS", why=f"{path} is there already") from None
    except OSError as error:
        raise ConfigError("FILE_NOT_WRITABLE", why=f"{path}: {error.strerror}") from None
    try:
        with os.fdopen(handle, "w") as file:

            def write(data: object) -> None:
                file.write(json.dumps(data, indent=2) + "\n")
                file.flush()
                os.fsync(file.fileno())

            yield write
    except BaseException:
        path.unlink(missing_ok=True)
        raise
