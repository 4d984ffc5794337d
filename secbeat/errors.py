"""Errors that a person reads.

    SecbeatError                 exit code 1
    ├── ConfigError              2   usage, configuration, a broken set-up: the start ends here
    ├── RefusedError             3   a limit, a pause, a stale revision, a cooldown
    ├── AuthError                4   not authenticated or not authorised
    ├── UnreachableError         5   a service that should answer does not
    └── WaitTimeoutError         6   the wait ended before the work did

Each carries a code of the catalogue (``secbeat.catalogue``), the measured *why* and a *fix* that can be pasted. The
command prints them, the API sends the same as problem+json; there is one wording.
"""

from __future__ import annotations

from typing import Any, ClassVar

from secbeat import catalogue


class SecbeatError(Exception):
    """Something failed and a person should know why and what to do."""

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, code: str, *, why: str, fix: str | None = None, status: int | None = None, **facts: Any) -> None:
        entry = catalogue.lookup(code)
        self.code = code
        self.title = entry.title
        self.why = why
        self.fix = fix if fix is not None else entry.remedy
        self.status = status or self.http_status
        self.facts = facts
        super().__init__(f"{code}: {why}")

    def problem(self) -> dict[str, Any]:
        """The error as RFC 9457 members; ``facts`` become extension members."""
        return {
            "type": f"urn:secbeat:error:{self.code}",
            "title": self.title,
            "status": self.status,
            "code": self.code,
            "detail": self.why,
            "fix": self.fix,
            **self.facts,
        }

    def lines(self) -> list[str]:
        """The error as the command prints it."""
        return [
            f"error[{self.code}]: {self.title}",
            f"  why:  {self.why}",
            f"  fix:  {self.fix}",
            f"  more: secbeat explain {self.code}",
        ]


class ConfigError(SecbeatError):
    """Wrong usage or configuration, or a set-up in which the service cannot start."""

    exit_code = 2
    http_status = 422


class RefusedError(SecbeatError):
    """Understood and refused: a limit, a pause, a stale revision."""

    exit_code = 3
    http_status = 409


class AuthError(SecbeatError):
    """No valid token, or a token without the scope."""

    exit_code = 4
    http_status = 401


class UnreachableError(SecbeatError):
    """A service that should answer does not."""

    exit_code = 5
    http_status = 503


class WaitTimeoutError(SecbeatError):
    """The wait ended before the work did; the work goes on."""

    exit_code = 6
    http_status = 504
