"""The one place where identifiers are made and checked.

Whatever becomes a file name, a NATS subject or a label goes through a ``check_*`` function first: an id that
passes contains no separator of any of these (``/``, ``.``, ``*``, ``>``, blank).
"""

from __future__ import annotations

import re
import uuid

from ulid import ULID

POOL_PATTERN = r"^[a-z]([a-z0-9-]{0,24}[a-z0-9])?$"
UUID_PATTERN = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
OP_PATTERN = r"^[0-7][0-9A-HJKMNP-TV-Z]{25}$"

_POOL = re.compile(POOL_PATTERN)
_UUID = re.compile(UUID_PATTERN)
_OP = re.compile(OP_PATTERN)


def new_node_id() -> str:
    """A fresh lower-case UUID; also used for ``boot_id`` and ``cluster_id``."""
    return str(uuid.uuid4())


new_boot_id = new_node_id
new_cluster_id = new_node_id


def new_op_id() -> str:
    """A fresh ULID: 26 characters, sorted by time of creation."""
    return str(ULID())


def check_uuid(value: str) -> str:
    """Return ``value`` if it is a lower-case hyphenated UUID, else raise ValueError."""
    if not _UUID.fullmatch(value):
        raise ValueError(f"not a lower-case UUID: {value[:64]!r}")
    return value


check_node_id = check_uuid


def check_op_id(value: str) -> str:
    """Return ``value`` if it is a ULID, else raise ValueError."""
    if not _OP.fullmatch(value):
        raise ValueError(f"not an operation id (ULID): {value[:64]!r}")
    return value


def check_pool(value: str) -> str:
    """Return ``value`` if it is a pool name, else raise ValueError."""
    if not _POOL.fullmatch(value):
        raise ValueError(f"not a pool name ({POOL_PATTERN}): {value[:64]!r}")
    return value


def machine_name(pool: str, node_id: str) -> str:
    """``<pool>-<first 8 of node_id>``: deterministic, so that a retry finds what its first attempt made."""
    return f"{check_pool(pool)}-{check_uuid(node_id)[:8]}"
