"""What clients send and nobody can read must not stay in memory."""

from __future__ import annotations

import asyncio
import contextlib
import gc

import pytest

from node.dataplane.builtin.connection import Connection


def alive():
    return {id(one) for one in gc.get_objects() if isinstance(one, Connection)}


@pytest.mark.parametrize("driver", ["builtin"])
async def test_an_unreadable_request_is_freed_at_once_and_not_when_a_collection_comes(plane, upstream, raw):
    made = await plane(await upstream())
    gc.collect()
    kept_by_earlier_tests = alive()
    gc.disable()
    try:
        for _ in range(4):
            reader, writer = await raw(made.port)
            writer.write(b"GET /" + b"a" * 500_000 + b" HTTP/1.1\r\n\r\n")
            async with asyncio.timeout(10):
                with contextlib.suppress(ConnectionError):
                    assert b" 431 " in await reader.read(-1)
            writer.transport.abort()
        async with asyncio.timeout(10):
            while not alive() <= kept_by_earlier_tests:  # noqa: ASYNC110 - the peers' ends decide when
                await asyncio.sleep(0.02)
    finally:
        gc.enable()
