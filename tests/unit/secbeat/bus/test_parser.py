"""The hot subscription's parser, against a client that only notes what reaches it, and against nats-py's own."""

from __future__ import annotations

import random
from collections import Counter
from types import SimpleNamespace

import pytest
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from secbeat.bus.parser import HotParser

HOT, COLD = 7, 8


class Client:
    """Stands in for nats-py's client: everything that a parser calls."""

    def __init__(self, *, breaks_on_error: bool = False) -> None:
        self.stats: Counter[str] = Counter()
        self._subs = {HOT: SimpleNamespace(_received=0), COLD: SimpleNamespace(_received=0)}
        self.log: list[tuple] = []
        self._breaks, self.parser = breaks_on_error, None

    async def _process_msg(self, sid, subject, reply, payload, headers):
        self.log.append(("msg", sid, bytes(subject), bytes(reply), payload, headers))

    async def _process_ping(self):
        self.log.append(("ping",))

    async def _process_pong(self):
        self.log.append(("pong",))

    async def _process_info(self, info):
        self.log.append(("info", info["x"]))

    async def _process_err(self, text):
        self.log.append(("err", text))
        if self._breaks:
            self.parser.reset()


def hot_parser(client: Client) -> HotParser:
    errors: list[Exception] = []
    parser = HotParser(client, errors.append)
    parser.hot[HOT] = lambda subject, payload: client.log.append(("hot", subject, payload))
    client.parser, client.handler_errors = parser, errors
    return parser


def msg(sid: int, payload: bytes, reply: bytes = b"", subject: bytes = b"secbeat.hb.a") -> bytes:
    head = b"MSG %s %d %s%d\r\n" % (subject, sid, reply + b" " if reply else b"", len(payload))
    return head + payload + b"\r\n"


def hmsg(sid: int, headers: bytes, payload: bytes, reply: bytes = b"") -> bytes:
    head = b"HMSG secbeat.hb.a %d %s%d %d\r\n" % (
        sid,
        reply + b" " if reply else b"",
        len(headers),
        len(headers) + len(payload),
    )
    return head + headers + payload + b"\r\n"


HEADERS = b"NATS/1.0\r\nA: b\r\n\r\n"
STREAM = b"".join(
    [
        b'INFO {"x": 1}\r\n',
        b"PONG\r\n",
        msg(HOT, b'{"a": 1}'),
        msg(HOT, b"{\r\n  pretty\r\n}\r\n"),
        msg(COLD, b"PING\r\nMSG x 7 1\r\n"),
        b"PING\r\n",
        msg(HOT, b""),
        msg(HOT, b"with reply", b"_INBOX.x"),
        msg(COLD, b""),
        hmsg(COLD, HEADERS, b"cold", b"_INBOX.y"),
        hmsg(HOT, HEADERS, b"hot\r\nwith headers"),
        hmsg(HOT, HEADERS, b""),
        b"+OK\r\n",
        b"-ERR 'Permissions Violation for Publish to \"x\"'\r\n",
        msg(99, b"of nobody"),
        msg(HOT, b"last", subject=b"secbeat.hb.b"),
    ]
)
EXPECTED = [
    ("info", 1),
    ("pong",),
    ("hot", "secbeat.hb.a", b'{"a": 1}'),
    ("hot", "secbeat.hb.a", b"{\r\n  pretty\r\n}\r\n"),
    ("msg", COLD, b"secbeat.hb.a", b"", b"PING\r\nMSG x 7 1\r\n", None),
    ("ping",),
    ("hot", "secbeat.hb.a", b""),
    ("hot", "secbeat.hb.a", b"with reply"),
    ("msg", COLD, b"secbeat.hb.a", b"", b"", None),
    ("msg", COLD, b"secbeat.hb.a", b"_INBOX.y", b"cold", HEADERS),
    ("hot", "secbeat.hb.a", b"hot\r\nwith headers"),
    ("hot", "secbeat.hb.a", b""),
    ("err", "'permissions violation for publish to \"x\"'"),
    ("msg", 99, b"secbeat.hb.a", b"", b"of nobody", None),
    ("hot", "secbeat.hb.b", b"last"),
]


async def test_a_stream_cut_at_any_byte_gives_the_same_messages_in_the_same_order():
    for cut in range(len(STREAM) + 1):
        client = Client()
        parser = hot_parser(client)
        await parser.parse(STREAM[:cut])
        await parser.parse(STREAM[cut:])
        assert client.log == EXPECTED, f"cut at {cut}"


async def test_a_stream_that_comes_byte_by_byte_gives_the_same_messages():
    client = Client()
    parser = hot_parser(client)
    for at in range(len(STREAM)):
        await parser.parse(STREAM[at : at + 1])
    assert client.log == EXPECTED


@pytest.mark.parametrize("seed", range(5))
async def test_without_hot_subscriptions_it_does_what_the_librarys_parser_does(seed):
    ours, theirs = Client(), Client()
    parser, reference = hot_parser(ours), Parser(theirs)
    parser.hot.clear()
    chance = random.Random(seed)
    at = 0
    while at < len(STREAM):
        size = chance.randint(1, 60)
        await parser.parse(STREAM[at : at + size])
        await reference.parse(STREAM[at : at + size])
        at += size
    assert ours.log == theirs.log


async def test_messages_are_counted_as_the_library_counts_them():
    client = Client()
    await hot_parser(client).parse(msg(HOT, b"12345") + msg(HOT, b"678"))
    assert client.stats == {"in_msgs": 2, "in_bytes": 8}
    assert client._subs[HOT]._received == 2


async def test_a_handler_that_fails_is_reported_and_the_next_message_is_delivered():
    client = Client()
    parser = hot_parser(client)
    deliver = parser.hot[HOT]

    def handler(subject, payload):
        if payload == b"bad":
            raise ValueError("a defect")
        deliver(subject, payload)

    parser.hot[HOT] = handler
    await parser.parse(msg(HOT, b"bad") + msg(HOT, b"good"))
    assert [str(error) for error in client.handler_errors] == ["a defect"]
    assert client.log == [("hot", "secbeat.hb.a", b"good")]


async def test_a_reset_forgets_the_half_read_message_and_keeps_the_subscription():
    client = Client()
    parser = hot_parser(client)
    await parser.parse(msg(HOT, b"never whole")[:-4])
    parser.reset()
    await parser.parse(msg(HOT, b"of the next connection"))
    assert client.log == [("hot", "secbeat.hb.a", b"of the next connection")]


async def test_bytes_behind_an_error_that_ends_the_connection_are_void():
    client = Client(breaks_on_error=True)
    parser = hot_parser(client)
    await parser.parse(b"-ERR 'stale connection'\r\n" + msg(HOT, b"of the old connection") + b"MSG half")
    await parser.parse(msg(HOT, b"of the next connection"))
    assert client.log[1:] == [("hot", "secbeat.hb.a", b"of the next connection")]


async def test_a_subscription_that_was_closed_falls_back_to_the_library():
    client = Client()
    parser = hot_parser(client)
    del parser.hot[HOT]
    await parser.parse(msg(HOT, b"late"))
    assert client.log == [("msg", HOT, b"secbeat.hb.a", b"", b"late", None)]


@pytest.mark.parametrize(
    "garbage",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"MSG a\r\n",
        b"MSG a x 3\r\nabc\r\n",
        b"MSG a 7 -3\r\n",
        b"HMSG a 7 9 3\r\nabc\r\n",
        b"MSG a 7 3\r\nabcdef\r\n",
        b"x" * (1024 * 1024 + 2),
    ],
)
async def test_what_is_not_the_protocol_is_refused(garbage):
    with pytest.raises(ProtocolError):
        await hot_parser(Client()).parse(garbage)


async def test_a_large_message_in_small_reads_arrives_whole():
    client = Client()
    parser = hot_parser(client)
    payload = bytes(range(256)) * 4000
    stream = msg(HOT, payload)
    for at in range(0, len(stream), 32768):
        await parser.parse(stream[at : at + 32768])
    assert client.log == [("hot", "secbeat.hb.a", payload)]
