"""Who this node is, and the files that it keeps that in.

A join file brings an identity; the registration turns it into credentials. The key pair is on disk before it is first
sent, so that an answer that was lost does not leave a registered key whose seed nobody has.
"""

from __future__ import annotations

import os
import stat
from datetime import datetime
from pathlib import Path

import nkeys
from pydantic import SecretStr, ValidationError, field_serializer

from secbeat import ids
from secbeat.auth import read_secret, write_secret
from secbeat.clock import wire_time
from secbeat.errors import ConfigError
from secbeat.wire.base import Moment, NodeId, OpId, PoolName, Record
from secbeat.wire.registration import Credentials, JoinFile


class Kept(Record):
    """``credentials.json``: what a joined node needs to go on after a restart. Mode 0600."""

    server_url: str
    cluster_id: NodeId
    node_id: NodeId
    pool: PoolName
    op_id: OpId | None = None
    epoch: int = 0
    management_token: SecretStr
    nats_url: str | None = None
    nats_jwt: SecretStr | None = None
    renew_before: Moment | None = None
    heartbeat_seconds: float = 5.0

    @field_serializer("management_token", "nats_jwt", when_used="json")
    def _reveal(self, value: SecretStr | None) -> str | None:
        return None if value is None else value.get_secret_value()

    def renewed(self, credentials: Credentials, heartbeat_seconds: float) -> Kept:
        """With what a new registration brought; the epoch never falls."""
        return self.model_copy(
            update={
                "epoch": max(self.epoch, credentials.epoch),
                "management_token": credentials.management_token,
                "nats_url": credentials.nats_url,
                "nats_jwt": credentials.nats_jwt,
                "renew_before": credentials.renew_before,
                "heartbeat_seconds": heartbeat_seconds,
            }
        )


class Keys:
    """The node's NATS key pair (Ed25519): the seed never leaves its file but to sign."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def seed(self) -> str:
        """The seed; made and written at the first call.

        Raises:
            ConfigError: SECRET_UNREADABLE, STATE_NOT_WRITABLE.
        """
        if not self._path.exists():
            write_secret(self._path, nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER).decode() + "\n")
        return read_secret(self._path)

    @property
    def public(self) -> str:
        """The public key, ``U…``."""
        pair = nkeys.from_seed(bytearray(self.seed.encode()))
        try:
            return str(pair.public_key.decode())
        finally:
            pair.wipe()


class IdentityStore:
    """The files of one node's identity in its state directory."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "credentials.json"
        self.keys = Keys(directory / "nats.seed")
        self.kept: Kept | None = None

    def load(self) -> Kept | None:
        """Read the credentials of an earlier start, if there are any.

        Raises:
            ConfigError: damaged or newer (NODE_CREDENTIALS_INVALID), wrong mode (SECRET_UNREADABLE).
        """
        if self.file.exists():
            text = read_secret(self.file)
            try:
                self.kept = Kept.decode(text)
            except ValidationError as error:
                where = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
                raise ConfigError("NODE_CREDENTIALS_INVALID", why=f"{self.file}: {where or 'not JSON'}") from None
        return self.kept

    def keep(self, kept: Kept) -> None:
        """Write the credentials.

        Raises:
            ConfigError: STATE_NOT_WRITABLE.
        """
        write_secret(self.file, kept.model_dump_json() + "\n")
        self.kept = kept

    def saw_epoch(self, epoch: int) -> None:
        """Remember the highest epoch that commanded this node, beyond a restart."""
        if self.kept is not None and epoch > self.kept.epoch:
            self.keep(self.kept.model_copy(update={"epoch": epoch}))

    @property
    def management_token(self) -> str | None:
        """The node's own management token, once it has joined."""
        return self.kept.management_token.get_secret_value() if self.kept is not None else None


def read_join_file(path: Path, now: datetime) -> JoinFile:
    """The join file.

    Raises:
        ConfigError: JOIN_FILE_INVALID.
    """
    try:
        mode, text = path.stat().st_mode, path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise ConfigError("JOIN_FILE_INVALID", why=f"{path}: {reason}") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError("JOIN_FILE_INVALID", why=f"{path} has mode {stat.S_IMODE(mode):04o}", fix=f"chmod 600 {path}")
    try:
        join = JoinFile.decode(text)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors(include_input=False)[0]["loc"])
        raise ConfigError("JOIN_FILE_INVALID", why=f"{path}: {where or 'not JSON'}") from None
    if now >= join.expires_at:
        raise ConfigError("JOIN_FILE_INVALID", why=f"{path} was valid until {wire_time(join.expires_at)}")
    return join


def remove_join_file(path: Path) -> None:
    """Overwrite and remove a join file that has served."""
    try:
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.write(b"\0" * size)
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
    except OSError:
        path.unlink(missing_ok=True)


def new_boot_id() -> str:
    """The id of this life of the node."""
    return ids.new_boot_id()
