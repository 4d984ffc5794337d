"""The original's programs as a test needs them: servers that read and answer bytes as the recorded ones did."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable
from contextlib import suppress

from tests.contract import raw
from tests.contract.original import serde
from tests.contract.raw import Message

TOKEN = "secure-management-token-change-in-production"


class Server:
    """Listens on loopback; keeps every request and the number of the connection that it came on."""

    def __init__(self, answer: Callable[[Message], Message | None]) -> None:
        self._answer = answer
        self.on_request: Callable[[], None] = lambda: None
        self.requests: list[Message] = []
        self.connections: list[int] = []
        self._opened = 0
        self.port = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def start(self, host: str = "127.0.0.1", port: int = 0):
        self._server = await asyncio.start_server(self._serve, host, port)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://{host}:{self.port}"
        return self

    async def close(self) -> None:
        """Stop listening and cut what is connected."""
        self._server.close()
        for writer in self._writers:
            writer.close()
        for writer in self._writers:
            with suppress(ConnectionError):
                await writer.wait_closed()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._opened += 1
        number = self._opened
        self._writers.append(writer)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                message = await raw.read_message(reader)
                self.requests.append(message)
                self.connections.append(number)
                self.on_request()
                answer = self._answer(message)
                if answer is None:  # it never answers
                    await asyncio.Event().wait()
                writer.write(raw.encode(answer))
                await writer.drain()

    def paths(self) -> list[str]:
        return [message.first.split()[1] for message in self.requests]


def _with(message: Message, body: bytes) -> Message:
    return Message(message.first, message.headers, body)


def _refused(status: str, why: str) -> Message:
    headers = (("content-type", "text/plain; charset=utf-8"), ("content-length", "0"))
    return Message(f"HTTP/1.1 {status}", headers, why.encode())


class Orchestrator(Server):
    """The original's registry: a new id at every call, 404 for ids that it does not know.

    Attributes:
        registered, beats: what it has read.
        known: the ids that it gave; clear it, and it has been restarted.
        interval: the seconds between heartbeats that it asks for.
        answers: overrides what it answers to the next requests, one each.
    """

    def __init__(self) -> None:
        super().__init__(self._original)
        self.registered: list[serde.Register] = []
        self.beats: list[serde.Heartbeat] = []
        self.known: list[str] = []
        self.answers: list[Message] = []
        self.interval = 10

    def _original(self, message: Message) -> Message:
        if not message.first.startswith("POST "):
            return raw.response("unknown_path")
        if message.header("content-type") != "application/json":
            return raw.response("register_no_ctype")
        if self.answers:
            return self.answers.pop(0)
        handlers = {"/api/v1/nodes/register": self._register, "/api/v1/nodes/heartbeat": self._heartbeat}
        handle = handlers.get(message.first.split()[1])
        try:
            return raw.response("unknown_path") if handle is None else handle(message)
        except ValueError as error:
            return _refused("422 Unprocessable Entity", str(error))

    def _register(self, message: Message) -> Message:
        self.registered.append(serde.Register.read(message.body))
        node_id = str(uuid.uuid4())
        self.known.append(node_id)
        template = raw.response("node_session")
        before = template.json()["node_id"]
        body = template.body.replace(before.encode(), node_id.encode())
        return _with(
            template, body.replace(b'"heartbeat_interval":10', f'"heartbeat_interval":{self.interval}'.encode())
        )

    def _heartbeat(self, message: Message) -> Message:
        beat = serde.Heartbeat.read(message.body)
        if str(beat.node_id) not in self.known:
            return raw.response("heartbeat_unknown")
        self.beats.append(beat)
        return raw.response("node_session", 1)


class Management(Server):
    """The management port of the original's node: its token, then its body."""

    def __init__(self) -> None:
        super().__init__(self._original)
        self.terminated: list[serde.Terminate] = []

    def _original(self, message: Message) -> Message:
        if message.header("authorization") != f"Bearer {TOKEN}":
            return raw.response("management_1")
        if message.first != "POST /control/terminate HTTP/1.1":
            return raw.response("management_4")
        try:
            self.terminated.append(serde.Terminate.read(message.body))
        except ValueError as error:
            return _refused("422 Unprocessable Entity", str(error))
        return raw.response("terminate")


class Receiver(Server):
    """The receiver of webhooks in the original's repository."""

    def __init__(self) -> None:
        super().__init__(lambda _message: raw.split(raw.recorded("webhook.response.bin"))[0])
