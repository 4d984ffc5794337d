"""Who may read the blocklist's snapshot: loopback, a token that reads, and every node by its management token.

A node's management token opens this one route and no other: it is no API token, and no scope fits it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Protocol

from aiohttp import web

from secbeat.api import bearer, fail
from secbeat.api.guarding import TokenCheck, from_loopback
from secbeat.auth import hash_token

_DERIVED_PER_TURN = 100


class Holder(Protocol):
    """A node, as far as its token is concerned."""

    node_id: str
    legacy: bool


class Following:
    """The check.

    Args:
        check: API tokens.
        derive: the management token of a node; None: nodes have none here.
        nodes: the nodes known now.
    """

    def __init__(
        self, check: TokenCheck, derive: Callable[[str], str] | None, nodes: Callable[[], Iterable[Holder]]
    ) -> None:
        self._check, self._derive, self._nodes = check, derive, nodes
        self._holders: dict[str, str] = {}

    async def admit(self, request: web.Request) -> None:
        """Return if the caller may read.

        Raises:
            ApiError: 401.
        """
        if from_loopback(request):
            return
        token = bearer(request)
        if token is not None:
            found = self._check(token)
            if (found is not None and found.may("read")) or await self._is_node(token):
                return
        fail("NOT_AUTHENTICATED", 401, "a token is needed", headers={"WWW-Authenticate": "Bearer"})

    async def _is_node(self, token: str) -> bool:
        if self._derive is None:
            return False
        # By hash: what the lookup takes in time tells nothing about a token.
        hashed = hash_token(token)
        if hashed not in self._holders:
            await self._learn(self._derive)
        node_id = self._holders.get(hashed)
        return node_id is not None and any(node.node_id == node_id for node in self._nodes())

    async def _learn(self, derive: Callable[[str], str]) -> None:
        """Derive the tokens of nodes that came since, and forget those of nodes that went."""
        present = {node.node_id for node in self._nodes() if not node.legacy}
        self._holders = {hashed: node_id for hashed, node_id in self._holders.items() if node_id in present}
        for number, node_id in enumerate(sorted(present - set(self._holders.values())), 1):
            self._holders[hash_token(derive(node_id))] = node_id
            if number % _DERIVED_PER_TURN == 0:
                await asyncio.sleep(0)
