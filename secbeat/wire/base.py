"""What every message and record has in common."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer

from secbeat import ids
from secbeat.clock import wire_time
from secbeat.errors import ConfigError

VERSION = 1

# The pattern is for the OpenAPI document; the check beside it says what was wrong.
NodeId = Annotated[str, AfterValidator(ids.check_uuid), Field(json_schema_extra={"pattern": ids.UUID_PATTERN})]
OpId = Annotated[str, AfterValidator(ids.check_op_id), Field(json_schema_extra={"pattern": ids.OP_PATTERN})]
PoolName = Annotated[str, AfterValidator(ids.check_pool), Field(json_schema_extra={"pattern": ids.POOL_PATTERN})]
Fraction = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=2**63 - 1)]
Moment = Annotated[AwareDatetime, PlainSerializer(wire_time, when_used="json")]
Text = Annotated[str, Field(max_length=2000)]


def utc_now() -> datetime:
    """The default for times that only people read; decisions take a Clock."""
    return datetime.now(UTC)


class Wire(BaseModel):
    """A message or a part of one: frozen, unknown keys ignored, NaN and infinities refused."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    def encode(self) -> bytes:
        """JSON, UTF-8."""
        return self.model_dump_json().encode()

    @classmethod
    def decode(cls, data: bytes | str) -> Self:
        """Read JSON.

        Raises:
            pydantic.ValidationError: not this message.
        """
        return cls.model_validate_json(data)

    def plain(self) -> dict[str, Any]:
        """JSON-ready dict."""
        return self.model_dump(mode="json")


class Record(Wire):
    """A stored or exchanged record with a version."""

    v: int = VERSION

    @classmethod
    def decode(cls, data: bytes | str) -> Self:
        """Read a record of this version or the one before.

        Raises:
            ConfigError: the record is newer than this program (code STATE_NEWER).
            pydantic.ValidationError: not this record.
        """
        record = cls.model_validate_json(data)
        if record.v > VERSION:
            raise ConfigError(
                "STATE_NEWER", why=f"{cls.__name__} has version {record.v}, this program reads up to {VERSION}"
            )
        return record
