"""The one-use join secret: fetched from the orchestrator, put into a 0600 file, kept nowhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import aiohttp
from pydantic import ValidationError

from secbeat.auth import write_secret
from secbeat.errors import ConfigError
from secbeat.wire.jobs import JobError
from secbeat.wire.registration import JoinFile, JoinSecret

_TIMEOUT = aiohttp.ClientTimeout(total=10, connect=3)
_LONGEST_ANSWER = 16 * 1024


class JoinFailed(Exception):
    """No secret; ``error`` says why, for the job's record."""

    def __init__(self, error: JobError) -> None:
        super().__init__(error.message)
        self.error = error


class JoinSource(Protocol):
    """Where join secrets come from."""

    async def fetch(self, op_id: str) -> JoinSecret:
        """A fresh secret for an unfinished create operation. Raises JoinFailed."""
        ...


class OrchestratorJoins:
    """``POST /api/v1/operations/{op_id}/join`` with the service token."""

    def __init__(self, url: str, token: str | None, session: aiohttp.ClientSession) -> None:
        self._url, self._token, self._session = url.rstrip("/"), token, session

    async def fetch(self, op_id: str) -> JoinSecret:
        if self._token is None:
            raise _refused("there is no service token; set provisioner.service_token_file")
        url = f"{self._url}/api/v1/operations/{op_id}/join"
        headers = {"Authorization": f"Bearer {self._token}"}
        try:
            async with self._session.post(
                url, json={}, headers=headers, timeout=_TIMEOUT, allow_redirects=False
            ) as answer:
                body = await answer.content.read(_LONGEST_ANSWER)
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _unavailable(f"{self._url} does not answer: {type(error).__name__}") from None
        if status >= 500 or status == 429:
            raise _unavailable(f"{self._url} answers {status}")
        if status in (404, 409, 410):
            ended = JobError(
                code="OPERATION_ENDED",
                message=f"the orchestrator gives no join secret for {op_id}: it answers {status}",
                retryable=False,
            )
            raise JoinFailed(ended)
        if status != 200:
            raise _refused(f"{self._url} answers {status} to the service token")
        try:
            secret = JoinSecret.decode(body)
        except ValidationError:
            raise _refused(f"{self._url} answers something that is no join secret") from None
        if secret.op_id != op_id:
            raise _refused(f"{self._url} answers with the secret of another operation")
        return secret


def _unavailable(why: str) -> JoinFailed:
    return JoinFailed(JobError(code="JOIN_SECRET_UNAVAILABLE", message=why))


def _refused(why: str) -> JoinFailed:
    return JoinFailed(JobError(code="JOIN_SECRET_REFUSED", message=why))


def write_join_file(path: Path, secret: JoinSecret, *, server_url: str) -> None:
    """Write the file with which a machine joins; 0600 in a 0700 directory.

    Raises:
        JoinFailed: MACHINE_DIR_UNWRITABLE.
    """
    content = JoinFile(
        server_url=server_url,
        cluster_id=secret.cluster_id,
        node_id=secret.node_id,
        op_id=secret.op_id,
        pool=secret.pool,
        secret=secret.secret,
        expires_at=secret.expires_at,
    )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.parent.chmod(0o700)
        write_secret(path, content.encode().decode())
    except OSError as error:
        raise _unwritable(f"{path.parent}: {error.strerror}") from None
    except ConfigError as error:
        raise _unwritable(error.why) from None


def _unwritable(why: str) -> JoinFailed:
    message = f"the machine's directory cannot be written: {why}"
    return JoinFailed(JobError(code="MACHINE_DIR_UNWRITABLE", message=message))
