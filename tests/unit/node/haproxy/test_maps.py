from __future__ import annotations

import pytest

from node.dataplane.blocklist import Blocklist, place
from node.dataplane.haproxy.maps import BlocklistMap, StateMap
from node.dataplane.haproxy.runtime import RuntimeFailed


class FakeRuntime:
    """Answers as HAProxy does, and remembers."""

    def __init__(self) -> None:
        self.commands: list[str] = []
        self.deaf = False

    async def ask(self, command: str) -> str:
        if self.deaf:
            raise RuntimeFailed("no answer in time")
        self.commands.append(command)
        return "New version created: 7\n\n"

    async def told(self, command: str) -> None:
        await self.ask(command)


class Time:
    now = 1000.0


@pytest.fixture
def made(tmp_path):
    clock, runtime = Time(), FakeRuntime()
    return BlocklistMap(tmp_path, runtime, now=lambda: clock.now), runtime, clock, tmp_path


def blocklist(clock, *entries: str) -> Blocklist:
    return Blocklist(1, entries, now=lambda: clock.now)


async def test_only_the_difference_is_sent(made):
    table, runtime, clock, directory = made
    table.write(blocklist(clock, "10.0.0.0/8", "192.0.2.7"))
    assert sorted((directory / "blocklist.map").read_text().splitlines()) == ["10.0.0.0/8 1", "192.0.2.7/32 1"]
    await table.follow(blocklist(clock, "10.0.0.0/8", "2001:db8::1"))
    assert runtime.commands == [
        "@1 del map blocklist.map 192.0.2.7/32",
        "@1 add map blocklist.map <<\n2001:db8::1/128 1\n",
    ]
    await table.follow(blocklist(clock, "10.0.0.0/8", "2001:db8::1"))
    assert len(runtime.commands) == 2


async def test_an_entry_ends_on_time_and_the_next_end_is_known(made):
    table, runtime, clock, _ = made
    table.write(blocklist(clock))
    listed = blocklist(clock, "10.0.0.0/8")
    listed.put(place("192.0.2.7"), 1010.0)
    listed.put(place("192.0.2.8"), 1020.0)
    await table.follow(listed)
    assert table.next_end == 1010.0
    runtime.commands.clear()
    clock.now = 1010.0
    await table.follow(listed)
    assert runtime.commands == ["@1 del map blocklist.map 192.0.2.7/32"]
    assert (table.next_end, table.size) == (1020.0, 2)


async def test_many_differences_replace_the_whole_list_in_one_commit(made):
    table, runtime, clock, _ = made
    table.write(blocklist(clock))
    await table.follow(blocklist(clock, *(f"10.0.{n >> 8}.{n & 255}" for n in range(900))))
    assert runtime.commands[0] == "@1 prepare map blocklist.map"
    assert runtime.commands[-1] == "@1 commit map @7 blocklist.map"
    added = [line for command in runtime.commands[1:-1] for line in command.splitlines()[1:]]
    assert len(added) == 900
    assert all(command.startswith("@1 add map @7 blocklist.map <<\n") for command in runtime.commands[1:-1])
    assert max(map(len, runtime.commands)) < 16384 - 1024


async def test_after_a_failure_or_an_adoption_everything_is_sent_anew(made):
    table, runtime, clock, _ = made
    table.write(blocklist(clock))
    runtime.deaf = True
    with pytest.raises(RuntimeFailed):
        await table.follow(blocklist(clock, "192.0.2.7"))
    runtime.deaf = False
    await table.follow(blocklist(clock, "192.0.2.7"))
    assert runtime.commands[0] == "@1 prepare map blocklist.map"


@pytest.mark.parametrize(("text", "state"), [("state held\n", "held"), ("state x\n", None), ("", None)])
def test_the_state_is_read_from_the_file_or_unknown(text, state, tmp_path):
    (tmp_path / "flags.map").write_text(text)
    assert StateMap(tmp_path, FakeRuntime()).read() == state
