"""``secbeat why NODE``: what keeps it, a code for each reason, and when it will leave."""

from __future__ import annotations

import json

CALM = {"scale_down_checks": 3, "scale_down_cooldown_seconds": 0, "scale_up_checks": 1000, "warmup_seconds": 60}


def beats_without_metrics(w, node):
    """It is heard, and what it says of its load is refused."""
    node.cpu = float("nan")


async def fleet(serve, size, **pool):
    service = await serve(pool={**CALM, "min": size, "max": 20, **pool})
    await service.world.until(lambda: len(service.world.active()) == size, within=60)
    await service.world.clock.advance(90)  # all are warm
    return service


async def kept(service):
    rows = json.loads((await service.secbeat("why", "default", "--nodes", "-o", "json")).out)
    return {row["node_id"]: row for row in rows}


async def test_six_nodes_kept_by_six_reasons_show_six_codes(serve):
    service = await fleet(serve, 4)
    w = service.world
    ordinary, guarded, mute, silent = w.active()
    assert (await service.secbeat("protect", guarded)).code == 0
    beats_without_metrics(w, w.nodes.all[mute])
    w.nodes.all[silent].beating = False
    await w.clock.advance(40)
    assert (await service.secbeat("scale", "default", "5")).code == 0
    await w.until(lambda: len(w.active()) == 5, within=30)
    (fresh,) = set(w.active()) - {ordinary, guarded, mute, silent}
    w.auto_join = False
    assert (await service.secbeat("scale", "default", "6")).code == 0
    await w.clock.advance(11)
    found = await kept(service)
    (booting,) = set(found) - {ordinary, guarded, mute, silent, fresh}
    codes = {name: found[node]["blocked_by"][0] for name, node in (
        ("ordinary", ordinary), ("guarded", guarded), ("mute", mute), ("silent", silent), ("fresh", fresh),
        ("booting", booting),
    )}  # fmt: skip
    assert codes == {
        "ordinary": "OVERRIDE",
        "guarded": "PROTECTED",
        "mute": "STALE_METRICS",
        "silent": "SILENT",
        "fresh": "WARMING_UP",
        "booting": "BOOTING_CAPACITY",
    }
    table = (await service.secbeat("why", "default", "--nodes")).out
    assert all(code in table for code in codes.values())
    one = await service.why(guarded)
    assert one.line("kept by").startswith("PROTECTED")
    assert one.line("fix") == f"secbeat protect {guarded} --off"


async def test_the_node_that_nothing_keeps_shows_when_it_leaves_and_leaves_then(serve):
    service = await fleet(serve, 3, scaling_check_interval_seconds=60)
    w = service.world
    for number, node in enumerate(w.nodes.all.values()):
        node.connections = number
    first = next(iter(w.nodes.all))
    low = w.settings.pools["default"].model_copy(update={"min": 1})
    w.core.reload(w.settings.model_copy(update={"pools": {"default": low}}))
    w.load(0.05)
    await w.until(lambda: w.core.pool("default").decision.code == "WAITING_FOR_CHECKS", within=90)
    found = await kept(service)
    assert found[first]["blocked_by"] == []
    assert found[first]["leaves"].startswith("when cpu stays below 30 % until ")
    others = [row["blocked_by"] for node, row in found.items() if node != first]
    assert others == [["NOT_NEXT"], ["NOT_NEXT"]]
    planned = (await service.why(first)).line("leaves")
    assert planned == found[first]["leaves"]
    await w.until(lambda: w.core.pool("default").decision.direction == "down", within=200)
    decision = w.core.pool("default").decision
    assert decision.victim == first
    assert f"{decision.at:%Y-%m-%dT%H:%M:%SZ}" in planned
    await w.clock.advance(1)
    assert (await service.why(first)).line("leaves").startswith("it is leaving, at the latest at ")


async def test_a_node_that_nobody_can_destroy_says_so_first(serve):
    service = await serve(pool={**CALM, "min": 1}, deprovisioning_webhook_url=None)
    w = service.world
    await w.until(lambda: len(w.active()) == 1, within=60)
    node = w.active()[0]
    assert (await service.secbeat("drain", node[:8])).code == 0
    await w.until(lambda: any(op.state == "needs_operator" for op in w.operations()), within=300)
    why = await service.why(node)
    assert "CANNOT_DESTROY: " in why.first
    assert why.line("kept by") == "CANNOT_DESTROY"
