"""What an instance asks of its own services over HTTP."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import aiohttp

from secbeat.errors import UnreachableError

_SECONDS = aiohttp.ClientTimeout(total=10, connect=2)


class Api:
    """The orchestrator's API with an administrator's token."""

    def __init__(self, url: str, token: str) -> None:
        self.url = url
        self._session = aiohttp.ClientSession(
            timeout=_SECONDS,
            headers={"Authorization": f"Bearer {token}"},
            connector=aiohttp.TCPConnector(ssl=False),  # loopback, often with a certificate of its own making
        )

    async def get(self, path: str) -> Any:
        """GET; the JSON answer.

        Raises:
            UnreachableError: no answer, or none with status 2xx (SERVICE_UNREACHABLE).
        """
        return await self._request("GET", path, None)

    async def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """POST JSON; the JSON answer. Raises as `get`."""
        return await self._request("POST", path, body or {})

    async def items(self, path: str) -> list[dict[str, Any]]:
        """GET a list: a bare array, or ``items`` of an object."""
        found = await self.get(path)
        return list(found["items"] if isinstance(found, dict) else found)

    async def events(self, newest: int) -> list[dict[str, Any]]:
        """So many of the newest events, oldest first. Raises as `get`."""
        path = f"/api/v1/events?newest={newest}&once=1"
        text = await self._request("GET", path, None, text=True)
        lines = (line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: "))
        return [event for event in map(json.loads, lines) if "sentence" in event]

    async def ready(self, url: str) -> bool:
        """Whether the service at ``url`` says that it can do its work."""
        try:
            async with self._session.get(f"{url}/readyz") as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def close(self) -> None:
        """Close the connections."""
        await self._session.close()

    async def _request(self, method: str, path: str, body: dict[str, Any] | None, *, text: bool = False) -> Any:
        try:
            async with self._session.request(method, f"{self.url}{path}", json=body) as answer:
                if answer.status >= 300:
                    why = f"{method} {path} answered {answer.status}: {(await answer.text())[:300]}"
                    raise UnreachableError("SERVICE_UNREACHABLE", why=why)
                return await (answer.text() if text else answer.json())
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise UnreachableError("SERVICE_UNREACHABLE", why=f"{method} {self.url}{path}: {error!r}") from None


async def resume_retired(api: Api) -> list[str]:
    """Put pools to work again that an earlier stop retired; a pause or a manual size on them stays in force."""
    resumed = []
    for pool in await api.items("/api/v1/pools"):
        if not pool["retired"]:
            continue
        path = f"/api/v1/pools/{pool['name']}"
        await api.post(f"{path}/resume")
        resumed.append(str(pool["name"]))
        # 'resume' ends everything that holds a pool; only the retirement was ours to end.
        if pause := pool["pause"]:
            body = {"direction": pause["direction"], "reason": pause["reason"], "for_seconds": _left(pause["until"])}
            await _if_still_wanted(api, f"{path}/pause", body)
        if override := pool["override"]:
            body = {"size": override["size"], "for_seconds": _left(override["until"])}
            await _if_still_wanted(api, f"{path}/scale", body)
    return resumed


async def _if_still_wanted(api: Api, path: str, body: dict[str, Any]) -> None:
    seconds = body["for_seconds"]
    if seconds is None or seconds > 0:
        await api.post(path, body)


def _left(until: str | None) -> float | None:
    return None if until is None else (datetime.fromisoformat(until) - datetime.now(UTC)).total_seconds()
