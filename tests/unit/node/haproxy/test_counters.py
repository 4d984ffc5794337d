from __future__ import annotations

import pytest

from node.dataplane import Totals
from node.dataplane.haproxy.counters import Counting, Reading, parse

STAT = """# pxname,svname,scur,stot,hrsp_1xx,hrsp_4xx,hrsp_5xx,-,ssl_sess,
main,FRONTEND,9,700,3,12,6,-,55,
ready,BACKEND,0,400,0,0,99,-,0,
excess,BACKEND,0,5,0,0,5,-,0,
blocked,BACKEND,0,7,0,7,0,-,0,
refused,BACKEND,0,4,0,4,0,-,0,
origin,BACKEND,3,250,0,1,1,-,0,
sockets,BACKEND,2,6,3,0,0,-,0,

"""


def reading(requests: int, in_flight: int = 0, upgraded: int = 0) -> Reading:
    return Reading(Totals(requests=requests, in_flight=in_flight, upgraded=upgraded), 0)


def test_each_kind_of_request_counts_where_it_belongs_and_health_checks_nowhere():
    found = parse(STAT)
    assert found.totals == Totals(
        requests=272, proxied=256, server_errors=6, http_errors=18, blocked=7, over_limit=5, handshakes=55, upgraded=3,
        connections=9, in_flight=5,
    )  # fmt: skip
    assert found.sockets == 2


@pytest.mark.parametrize("text", ["", "No such process\n", "# pxname,svname\nother,BACKEND\n"])
def test_an_answer_without_statistics_is_refused(text):
    with pytest.raises(ValueError):
        parse(text)


def test_a_reload_or_a_crash_takes_no_count_back():
    counting = Counting()
    counting.read({1: reading(10, in_flight=4)})
    counting.read({2: reading(1, in_flight=1), 1: reading(12, in_flight=2)})
    assert (counting.total.requests, counting.total.in_flight) == (13, 3)
    counting.read({2: reading(5)})
    assert (counting.total.requests, counting.total.in_flight) == (17, 0)
    counting.read({})
    assert counting.total.requests == 17
    counting.read({3: reading(1)})
    assert counting.total.requests == 18


def test_upgrades_never_shrink_when_a_handshake_fails():
    counting = Counting()
    counting.read({1: reading(1, upgraded=2)})
    counting.read({1: reading(1, upgraded=1)})
    assert counting.total.upgraded == 2
