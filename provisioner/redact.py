"""Take known secrets out of everything that is stored or shown, by value, whatever wrote them.

``no_log`` protects a task's result; it does not protect task names, the output of commands, or error messages. So the
service replaces every secret that it knows, in each form in which one usually travels.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import quote, quote_plus

REPLACEMENT = "[secret]"
_SHORTEST = 8


def _forms(secret: str) -> set[str]:
    """The ways in which ``secret`` may be spelled: itself, JSON, URL, and base64 at each of three offsets."""
    raw = secret.encode()
    found = {secret, json.dumps(secret)[1:-1], quote(secret, safe=""), quote(secret), quote_plus(secret)}
    found |= {base64.b64encode(raw).decode().rstrip("="), base64.urlsafe_b64encode(raw).decode().rstrip("="), raw.hex()}
    for offset in (1, 2):
        # Inside a longer text base64 groups start elsewhere: drop the characters that mix with neighbours.
        shifted = base64.b64encode(b"\0" * offset + raw).decode().rstrip("=")
        core = shifted[offset + 1 :]
        core = core[:-1] if (offset + len(raw)) % 3 else core
        found |= {core, core.replace("+", "-").replace("/", "_")}
    core = base64.b64encode(raw).decode().rstrip("=")
    core = core[:-1] if len(raw) % 3 else core
    found |= {core, core.replace("+", "-").replace("/", "_")}
    return {form for form in found if len(form) >= _SHORTEST}


class Redactor:
    """Replaces secrets. Values shorter than eight characters are ignored: they would eat ordinary words."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._forms: set[str] = set()
        self._pattern: re.Pattern[str] | None = None
        for secret in secrets:
            self.add(secret)

    def add(self, secret: str) -> None:
        """Know another secret; of one with several lines each line counts."""
        for part in {secret, secret.removeprefix("whsec_"), *secret.splitlines()}:
            if len(part.strip()) >= _SHORTEST:
                self._forms |= _forms(part.strip())
        self._pattern = (
            re.compile("|".join(re.escape(form) for form in sorted(self._forms, key=len, reverse=True)))
            if self._forms
            else None
        )

    def extended(self, secrets: Iterable[str]) -> Redactor:
        """A copy that knows more, for one job."""
        copy = Redactor()
        copy._forms, copy._pattern = set(self._forms), self._pattern
        for secret in secrets:
            copy.add(secret)
        return copy

    def text(self, value: str) -> str:
        """``value`` without any known secret."""
        return value if self._pattern is None else self._pattern.sub(REPLACEMENT, value)

    def tree(self, value: Any) -> Any:
        """Decoded JSON without any known secret, keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {self.text(key) if isinstance(key, str) else key: self.tree(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.tree(item) for item in value]
        return value


_NAMED_LIKE_SECRETS = re.compile(r"pass(word|wd|phrase)?|secret|token|credential|api_?key|private_?key", re.IGNORECASE)


def secrets_in(variables: dict[str, Any], *, below_secret: bool = False) -> Iterable[str]:
    """Strings among an operator's variables whose names say that they are secrets."""
    for name, value in variables.items():
        secret = below_secret or bool(_NAMED_LIKE_SECRETS.search(name))
        if isinstance(value, dict):
            yield from secrets_in(value, below_secret=secret)
        elif secret and isinstance(value, str):
            yield value
        elif secret and isinstance(value, list):
            yield from (item for item in value if isinstance(item, str))
