"""``secbeat_result``: what a playbook reports of the machine that it made or removed. It is data, so it is checked."""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from secbeat.wire.base import Wire
from secbeat.wire.jobs import JobError, Machine

_HOST = re.compile(r"^(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,62})(\.[A-Za-z0-9][A-Za-z0-9-]{0,62})*$")


class ResultInvalid(Exception):
    """The playbook ran to its end but did not report what it must; ``error`` is for the job's record."""

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.error = JobError(code=code, message=why[:1500], retryable=False)


def _address(value: str) -> str:
    try:
        return str(ip_address(value))
    except ValueError:
        if not _HOST.fullmatch(value):
            raise ValueError("is neither an IP address nor a host name") from None
        return value


class Created(Wire):
    """Result of a create."""

    id: str = Field(min_length=1, max_length=256)
    name: str = Field(max_length=256)
    address: Annotated[str, Field(max_length=256), AfterValidator(_address)]
    proxy_port: int = Field(8443, ge=1, le=65535)
    management_port: int = Field(9999, ge=0, le=65535)


class Destroyed(Wire):
    """Result of a destroy."""

    id: str = Field("", max_length=256)
    name: str = Field(max_length=256)
    gone: Literal[True]


def created(data: Any, *, name: str, digest: str) -> Machine:
    """The machine that a create reports; it must bear the name that was asked for.

    Raises:
        ResultInvalid: RESULT_MISSING, RESULT_INVALID.
    """
    found = _read(Created, data, name)
    return Machine(**found.model_dump(), blueprint_digest=digest)


def destroyed(data: Any, *, name: str) -> None:
    """Check that a destroy reports that the machine is gone.

    Raises:
        ResultInvalid: RESULT_MISSING, RESULT_INVALID.
    """
    _read(Destroyed, data, name)


def _read(model: Any, data: Any, name: str) -> Any:
    if data is None:
        why = "the playbook ended without setting secbeat_result (set_stats, per_host: false)"
        raise ResultInvalid("RESULT_MISSING", why)
    try:
        found = model.model_validate(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "it"
        raise ResultInvalid("RESULT_INVALID", f"secbeat_result: {where}: {first['msg']}") from None
    if found.name != name:
        raise ResultInvalid("RESULT_INVALID", f"secbeat_result names machine {found.name[:100]!r}, asked was {name!r}")
    return found
