"""Being a member of the fleet: how this node registers, and again when it must."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from node.identity import IdentityStore, Kept, read_join_file, remove_join_file
from node.registration import Answer, Orchestrator, Refused, Unreachable
from node.waiting import wait_for
from secbeat import __version__
from secbeat.clock import Clock
from secbeat.errors import AuthError, ConfigError
from secbeat.settings import NodeSettings
from secbeat.wire.registration import Join, JoinFile, Listening

log = logging.getLogger("agent")

_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0
_REFUSED_WAIT = 60.0
# Credentials are renewed when so much of their time has passed; the rest is for an orchestrator that is away.
_RENEW_AT = 0.8
LEGACY_LONGEST = 10.0


@dataclass(slots=True)
class Member:
    """This node in the fleet; ``legacy``: registered in the original's form."""

    node_id: str
    pool: str
    heartbeat_seconds: float
    legacy: bool


class Membership:
    """Registers this node.

    ``prepare`` finds out from the files which of three ways it is: a join file (one-use secret), kept credentials
    (management token), or neither (the original's form).
    """

    def __init__(
        self,
        settings: NodeSettings,
        store: IdentityStore,
        clock: Clock,
        *,
        boot_id: str,
        listening: Callable[[], Listening],
        listens_on: str = "127.0.0.1",
        on_renewed: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings, self._store, self._clock = settings, store, clock
        self._boot_id, self._listening, self._on_renewed = boot_id, listening, on_renewed
        self._join_file: JoinFile | None = None
        self._renew_at: float | None = None
        self._wanted = asyncio.Event()
        self._renewed_for_refusal = float("-inf")
        self.orchestrator = Orchestrator(settings.server_url, public_ip=settings.public_ip, listens_on=listens_on)
        self.member: Member | None = None

    def prepare(self) -> None:
        """Read the files.

        Raises:
            ConfigError: JOIN_FILE_INVALID, NODE_CREDENTIALS_INVALID, SECRET_UNREADABLE.
        """
        kept, path = self._store.load(), self._settings.join_file
        if path is not None and (path.exists() or kept is None):
            self._join_file = self._usable(path, kept)
        if (url := self._join_file.server_url if self._join_file else kept.server_url if kept else None) is not None:
            self.orchestrator.url = url.rstrip("/")

    def _usable(self, path: Path, kept: Kept | None) -> JoinFile | None:
        if kept is None:
            return read_join_file(path, self._clock.now())
        try:
            join = read_join_file(path, self._clock.now())
        except ConfigError:
            join = None  # spent or past its time: the credentials are what counts
        if join is not None and join.node_id != kept.node_id:
            raise ConfigError(
                "JOIN_FILE_INVALID",
                why=f"{path} is for node {join.node_id}, but {self._store.file.parent} belongs to {kept.node_id}",
                fix="Use an empty node.state_dir for the new node, or remove the join file",
            )
        remove_join_file(path)  # its secret was used by the start before, which ended between two steps
        return None

    @property
    def legacy(self) -> bool:
        """Whether the node has no credentials and none in prospect: the original's form."""
        return self._join_file is None and self._store.kept is None

    async def enter(self) -> Member:
        """Register for the first time; tries until it is answered. Kept credentials are enough to begin with.

        Raises:
            AuthError: JOIN_REFUSED.
            ConfigError: STATE_NOT_WRITABLE.
        """
        if (kept := self._store.kept) is not None:
            self.member = _member(kept)
            self._wanted.set()
            return self.member
        await self._clock.sleep(random.uniform(0, self._settings.register_jitter_seconds))  # noqa: S311 - jitter
        wait = _FIRST_WAIT
        while True:
            try:
                return await self._register()
            except Unreachable as error:
                log.warning("Not joined yet: %s", error, extra={"action": "join_wait"})
            except Refused as refused:
                raise AuthError("JOIN_REFUSED", why=f"{self.orchestrator.url} answered {refused}") from None
            await self._clock.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            wait = min(wait * 2, _LONGEST_WAIT)

    def again(self) -> None:
        """Register anew soon: the orchestrator does not know this node, or its credentials are gone."""
        self._wanted.set()

    def refused(self) -> None:
        """NATS does not accept our login: get a new one, unless that has just been tried and was no help."""
        # The original's form brings no login at all, and each registration in it would be another node.
        if self.legacy or self._clock.monotonic() - self._renewed_for_refusal < _REFUSED_WAIT:
            return
        self._renewed_for_refusal = self._clock.monotonic()
        self.again()

    async def run(self) -> None:
        """Renew credentials before they end, register anew when asked; for ever."""
        wait = _FIRST_WAIT
        while True:
            await self._until_due()
            self._wanted.clear()
            await self._clock.sleep(random.uniform(0, self._settings.register_jitter_seconds))  # noqa: S311 - jitter
            try:
                await self._register()
                wait = _FIRST_WAIT
                continue
            except Unreachable as error:
                log.warning("Not registered anew: %s", error, extra={"action": "join_wait"})
            except Refused as refused:
                # A node that serves goes on to serve: a person has to look, not its clients.
                log.critical("The orchestrator refuses this node: %s", refused, extra={"action": "join_refused"})
                wait = max(wait, _REFUSED_WAIT)
            except ConfigError as error:
                log.critical("Credentials not kept: %s", error, extra={"action": "join_not_kept"})
            await self._clock.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            wait = min(wait * 2, max(_LONGEST_WAIT, _REFUSED_WAIT))
            self._wanted.set()

    async def _until_due(self) -> None:
        left = None if self._renew_at is None else self._renew_at - self._clock.monotonic()
        await wait_for(self._wanted, self._clock, left)

    # ------------------------------------------------------------------------------------------------------- one round

    async def _register(self) -> Member:
        if self.legacy:
            answer = await self.orchestrator.register(None)
            seconds = min(answer.heartbeat_seconds, LEGACY_LONGEST)
            self.member = Member(answer.response.node_id, self._settings.pool, seconds, legacy=True)
        else:
            answer = await self.orchestrator.register(self._ours(), token=self._store.management_token)
            self.member = _member(self._accept(answer))
        log.info(
            "Registered as %s at %s, a heartbeat every %g s",
            self.member.node_id,
            self.orchestrator.url,
            self.member.heartbeat_seconds,
            extra={"action": "registered"},
        )
        self._on_renewed()
        return self.member

    def _ours(self) -> Join:
        join, kept = self._join_file, self._store.kept
        known = join or kept
        assert known is not None  # noqa: S101 - `legacy` is the case without either
        return Join(
            node_id=known.node_id,
            boot_id=self._boot_id,
            pool=known.pool,
            op_id=known.op_id,
            secret=join.secret.get_secret_value() if join is not None else None,
            nats_public_key=self._store.keys.public,
            listening=self._listening(),
            agent_version=__version__,
        )

    def _accept(self, answer: Answer) -> Kept:
        credentials, join = answer.response.credentials, self._join_file
        if credentials is None:
            raise Unreachable(f"{self.orchestrator.url}: it knows nothing of joins (no credentials in its answer)")
        known = join or self._store.kept
        assert known is not None  # noqa: S101 - see _ours
        if credentials.cluster_id != known.cluster_id or answer.response.node_id != known.node_id:
            raise Refused(200, "the answer is for another node or cluster")
        kept = Kept(
            server_url=self.orchestrator.url,
            cluster_id=known.cluster_id,
            node_id=known.node_id,
            pool=known.pool,
            op_id=known.op_id,
            epoch=self._store.kept.epoch if self._store.kept else 0,
            management_token=credentials.management_token,
        ).renewed(credentials, answer.heartbeat_seconds)
        self._store.keep(kept)
        if join is not None and self._settings.join_file is not None:
            remove_join_file(self._settings.join_file)
            self._join_file = None
        self._plan_renewal(kept)
        return kept

    def _plan_renewal(self, kept: Kept) -> None:
        self._renew_at = None
        if kept.renew_before is not None:
            life = (kept.renew_before - self._clock.now()).total_seconds()
            self._renew_at = self._clock.monotonic() + max(1.0, life * _RENEW_AT)


def _member(kept: Kept) -> Member:
    return Member(kept.node_id, kept.pool, kept.heartbeat_seconds, legacy=False)
