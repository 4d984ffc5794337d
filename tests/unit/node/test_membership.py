from __future__ import annotations

import json
import uuid
from datetime import timedelta
from itertools import pairwise

import pytest

from node.identity import IdentityStore
from node.membership import Membership
from node.registration import Answer, Refused, Unreachable
from secbeat.errors import AuthError, ConfigError
from secbeat.settings import NodeSettings
from secbeat.wire.registration import Listening, RegisterResponse

NODE, CLUSTER = str(uuid.uuid4()), str(uuid.uuid4())


class Orchestrator:
    """Answers registrations in virtual time; an exception in ``script`` is raised instead."""

    def __init__(self, clock) -> None:
        self.url = "http://orchestrator"
        self._clock = clock
        self.script: list = []
        self.calls: list[tuple[float, object, str | None]] = []
        self.life: float | None = None
        self.interval = 5
        self.cluster_id = CLUSTER

    async def register(self, join, *, token=None) -> Answer:
        self.calls.append((self._clock.monotonic(), join, token))
        if self.script and (error := self.script.pop(0)) is not None:
            raise error
        answer = {
            "node_id": join.node_id if join else str(uuid.uuid4()),
            "heartbeat_interval": self.interval,
            "endpoints": {"heartbeat_url": "x", "control_url": "x"},
        }
        if join:
            end = None if self.life is None else (self._clock.now() + timedelta(seconds=self.life)).isoformat()
            answer["credentials"] = {
                "cluster_id": self.cluster_id, "epoch": 3, "management_token": f"token{len(self.calls)}",
                "nats_url": "nats://x", "nats_jwt": f"jwt{len(self.calls)}", "renew_before": end,
            }  # fmt: skip
        return Answer(RegisterResponse.model_validate(answer))


@pytest.fixture
def write_join(tmp_path, clock):
    def write(**changes):
        path = tmp_path / "join.json"
        content = {
            "v": 1, "server_url": "http://orchestrator", "cluster_id": CLUSTER, "node_id": NODE,
            "op_id": "01JZZZZZZZZZZZZZZZZZZZZZZZ", "pool": "web", "secret": "s3cret",
            "expires_at": (clock.now() + timedelta(minutes=15)).isoformat(), **changes,
        }  # fmt: skip
        path.write_text(json.dumps(content))
        path.chmod(0o600)
        return path

    return write


@pytest.fixture
def make(tmp_path, clock):
    renewals = []

    def build(*, join_file=None, orchestrator=None, jitter=0.0):
        settings = NodeSettings(join_file=join_file, register_jitter_seconds=jitter, pool="default")
        made = Membership(
            settings, IdentityStore(tmp_path / "state"), clock, boot_id=str(uuid.uuid4()), listening=Listening,
            on_renewed=lambda: renewals.append(clock.monotonic()),
        )  # fmt: skip
        made.orchestrator = orchestrator or Orchestrator(clock)
        made.renewals = renewals
        made.prepare()
        return made

    return build


async def test_a_join_file_is_used_once_and_then_gone(make, write_join, tmp_path):
    path = write_join()
    membership = make(join_file=path)
    assert not membership.legacy
    member = await membership.enter()
    assert (member.node_id, member.pool, member.legacy, member.heartbeat_seconds) == (NODE, "web", False, 5.0)
    [(_, join, token)] = membership.orchestrator.calls
    assert (join.secret, token) == ("s3cret", None)
    assert not path.exists()
    kept = json.loads((tmp_path / "state" / "credentials.json").read_text())
    assert (kept["management_token"], kept["nats_jwt"], kept["epoch"]) == ("token1", "jwt1", 3)
    assert "s3cret" not in json.dumps(kept)


async def test_the_key_is_on_disk_before_it_is_sent(make, write_join, tmp_path):
    membership = make(join_file=write_join())
    membership.orchestrator.script = [Refused(403, "no")]
    with pytest.raises(AuthError):
        await membership.enter()
    sent = membership.orchestrator.calls[0][1].nats_public_key
    assert IdentityStore(tmp_path / "state").keys.public == sent


async def test_an_answer_that_does_not_come_is_waited_for_with_growing_pauses(make, write_join, clock, background):
    membership = make(join_file=write_join())
    membership.orchestrator.script = [Unreachable("x")] * 8
    entering = background(membership.enter())
    await clock.advance(600)
    assert entering.done()
    times = [at for at, _, _ in membership.orchestrator.calls]
    gaps = [late - early for early, late in pairwise(times)]
    assert len(times) == 9
    assert all(0.5 * 2**n <= gap <= 2**n for n, gap in enumerate(gaps[:5]))
    assert max(gaps) <= 30


async def test_a_refused_secret_is_not_tried_again(make, write_join):
    membership = make(join_file=write_join())
    membership.orchestrator.script = [Refused(403, "used already")]
    with pytest.raises(AuthError, match="used already") as refused:
        await membership.enter()
    assert refused.value.code == "JOIN_REFUSED"
    assert len(membership.orchestrator.calls) == 1


async def test_an_answer_of_another_cluster_is_refused_and_the_join_file_kept(make, write_join):
    path = write_join()
    membership = make(join_file=path)
    membership.orchestrator.cluster_id = str(uuid.uuid4())
    with pytest.raises(AuthError):
        await membership.enter()
    assert path.exists()


async def test_kept_credentials_are_enough_to_begin_and_are_renewed_with_the_token(make, write_join, background, clock):
    await make(join_file=write_join()).enter()
    again = make()
    again.orchestrator.script = [Unreachable("away")] * 3
    member = await again.enter()
    assert (member.node_id, again.orchestrator.calls) == (NODE, [])
    background(again.run())
    await clock.advance(60)
    assert len(again.orchestrator.calls) == 4
    _, join, token = again.orchestrator.calls[-1]
    assert (join.secret, token) == (None, "token1")


async def test_credentials_are_renewed_when_four_fifths_of_their_life_have_passed(make, write_join, background, clock):
    orchestrator = Orchestrator(clock)
    orchestrator.life = 100.0
    membership = make(join_file=write_join(), orchestrator=orchestrator)
    await membership.enter()
    background(membership.run())
    await clock.advance(79)
    assert len(orchestrator.calls) == 1
    await clock.advance(2)
    assert len(orchestrator.calls) == 2
    await clock.advance(81)
    assert len(orchestrator.calls) == 3
    assert len(membership.renewals) == 3


async def test_a_renewal_that_fails_is_tried_until_it_works(make, write_join, background, clock):
    orchestrator = Orchestrator(clock)
    orchestrator.life = 1000.0
    membership = make(join_file=write_join(), orchestrator=orchestrator)
    await membership.enter()
    orchestrator.script = [Unreachable("x"), Refused(401, "who?"), None]
    background(membership.run())
    await clock.advance(1000)
    assert len(orchestrator.calls) == 4


async def test_the_epoch_never_falls_by_a_renewal(make, write_join, background, clock, tmp_path):
    membership = make(join_file=write_join())
    await membership.enter()
    store = IdentityStore(tmp_path / "state")
    store.load()
    store.saw_epoch(50)
    again = make()
    await again.enter()
    background(again.run())
    await clock.advance(1)
    assert IdentityStore(tmp_path / "state").load().epoch == 50


async def test_a_join_waits_a_random_moment_first(make, write_join, background, clock):
    membership = make(join_file=write_join(), jitter=300.0)
    background(membership.enter())
    await clock.advance(0.0001)
    assert membership.orchestrator.calls == []
    await clock.advance(300)
    assert len(membership.orchestrator.calls) == 1


async def test_refused_nats_credentials_are_asked_for_anew_once_a_minute_at_most(make, write_join, background, clock):
    membership = make(join_file=write_join())
    await membership.enter()
    background(membership.run())
    await clock.advance(0.1)
    for _ in range(300):
        membership.refused()
        await clock.advance(1)
    assert 5 <= len(membership.orchestrator.calls) - 1 <= 6


async def test_a_node_in_the_originals_form_does_not_register_anew_because_nats_refuses_it(make, background, clock):
    membership = make()
    await membership.enter()
    background(membership.run())
    membership.refused()
    await clock.advance(120)
    assert len(membership.orchestrator.calls) == 1


async def test_without_join_file_and_credentials_the_originals_form_is_used_and_again_on_demand(
    make, background, clock
):
    membership = make()
    assert membership.legacy
    first = await membership.enter()
    assert first.legacy
    background(membership.run())
    await clock.advance(100)
    assert len(membership.orchestrator.calls) == 1
    membership.again()
    await clock.advance(1)
    assert [join for _, join, _ in membership.orchestrator.calls] == [None, None]
    assert membership.member.node_id != first.node_id


@pytest.mark.parametrize(("given", "used"), [(5, 5.0), (10, 10.0), (60, 10.0)])
async def test_the_originals_orchestrator_hears_from_the_node_every_ten_seconds_at_least(given, used, make, clock):
    orchestrator = Orchestrator(clock)
    orchestrator.interval = given
    assert (await make(orchestrator=orchestrator).enter()).heartbeat_seconds == used


@pytest.mark.parametrize(
    "change",
    [
        {"v": 2}, {"node_id": "../../etc"}, {"pool": "A"}, {"secret": None}, {"expires_at": "yesterday"},
        {"expires_at": "2020-01-01T00:00:00Z"},
    ],
)  # fmt: skip
async def test_an_unusable_join_file_stops_the_start_without_showing_its_secret(change, make, write_join):
    path = write_join(**change)
    with pytest.raises(ConfigError) as refused:
        make(join_file=path)
    assert refused.value.code in {"JOIN_FILE_INVALID", "STATE_NEWER"}
    assert "s3cret" not in str(refused.value.lines())


async def test_a_join_file_that_others_can_read_or_that_is_absent_stops_the_start(make, write_join, tmp_path):
    path = write_join()
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="0644"):
        make(join_file=path)
    with pytest.raises(ConfigError, match="No such file"):
        make(join_file=tmp_path / "absent.json")


async def test_a_leftover_join_file_of_the_same_node_is_removed_and_of_another_node_refused(make, write_join):
    await make(join_file=write_join()).enter()
    path = write_join()
    assert not make(join_file=path).legacy
    assert not path.exists()
    with pytest.raises(ConfigError, match="belongs to"):
        make(join_file=write_join(node_id=str(uuid.uuid4())))


@pytest.mark.parametrize("text", ["", "{}", "{half", '{"v": 1, "node_id": 5}'])
async def test_damaged_credentials_stop_the_start_and_are_named(text, make, write_join, tmp_path):
    await make(join_file=write_join()).enter()
    file = tmp_path / "state" / "credentials.json"
    file.write_text(text)
    file.chmod(0o600)
    with pytest.raises(ConfigError) as refused:
        make()
    assert refused.value.code in {"NODE_CREDENTIALS_INVALID", "SECRET_PLACEHOLDER"}
    assert "credentials.json" in refused.value.why
