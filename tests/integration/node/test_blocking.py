from __future__ import annotations

import asyncio

from node.dataplane.blocklist import Blocklist


async def answers(client, url, status, **request) -> int:
    """Wait for a status; the number of others before. HAProxy hears of a change some milliseconds after us."""
    async with asyncio.timeout(10):
        others = 0
        while True:
            async with client.get(url, **request) as response:
                if response.status == status:
                    return others
            others += 1
            await asyncio.sleep(0.01)


async def test_a_blocked_client_gets_403_and_can_still_be_unblocked(upstream, plane, client, at, until):
    node = await plane(await upstream())
    node.set_blocklist(Blocklist(1, ["10.0.0.0/8", "127.0.0.0/24"]))
    await answers(client, at(node), 403)
    async with client.get(at(node, "/.secbeat/ready")) as response:
        assert response.status == 200
    node.set_blocklist(Blocklist(2, ["10.0.0.0/8"]))
    blocked = 1 + await answers(client, at(node), 200)
    await until(lambda: node.stats().blocked == blocked, 10)


async def test_behind_a_trusted_proxy_the_client_is_blocked_and_not_the_proxy(upstream, plane, client, at):
    node = await plane(await upstream(), trusted_proxies=["127.0.0.0/8"])
    node.set_blocklist(Blocklist(1, ["6.6.6.6"]))
    await answers(client, at(node), 403, headers={"X-Forwarded-For": "7.7.7.7, 6.6.6.6"})
    async with client.get(at(node), headers={"X-Forwarded-For": "6.6.6.6, 7.7.7.7"}) as response:
        assert response.status == 200


async def test_readiness_is_answered_by_the_node_itself(plane, client, at, unused_port):
    node = await plane(f"http://127.0.0.1:{unused_port()}")
    async with client.get(at(node, "/.secbeat/ready")) as response:
        assert (response.status, await response.text()) == (200, "ready\n")
    node.begin_drain()
    async with client.get(at(node, "/.secbeat/ready")) as response:
        assert response.status == 503
        assert response.headers["Connection"] == "close"
