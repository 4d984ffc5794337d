"""A parser for nats-py that hands the messages of chosen subscriptions straight to their handlers.

nats-py takes four regular expressions, a Msg object, a queue and a task for each message. A heartbeat needs its
subject and its payload: here it costs a fifth. Everything else goes to nats-py's own parser, one whole operation at a
time and in the order of arrival.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nats.errors import ProtocolError
from nats.protocol.parser import Parser

Handler = Callable[[str, bytes], None]

_CRLF = b"\r\n"
_MAX_LINE_BYTES = 1024 * 1024  # an INFO line lists a whole cluster; no line is longer than this


class HotParser(Parser):
    """Cuts the stream into operations; ``hot`` maps a subscription's id to its handler."""

    def __init__(self, client: Any, on_error: Callable[[Exception], None]) -> None:
        self.hot: dict[int, Handler] = {}
        self._on_error = on_error
        self._rest = b""
        self._resets = 0
        super().__init__(client)

    def reset(self) -> None:
        """Forget a half-read operation; called by nats-py at each reconnect. Subscriptions keep their ids."""
        self._rest = b""
        self._resets += 1
        super().reset()

    async def parse(self, data: bytes = b"") -> None:
        """Consume every whole operation of the stream; the rest waits for more bytes.

        Raises:
            ProtocolError: what arrives is not NATS's protocol.
        """
        data = self._rest + data if self._rest else bytes(data)
        self._rest = b""
        at, size, resets = 0, len(data), self._resets
        while at < size:
            line_end = data.find(_CRLF, at)
            if line_end < 0:
                if size - at > _MAX_LINE_BYTES:
                    raise ProtocolError
                break
            end = line_end + 2
            if data.startswith((b"MSG ", b"HMSG "), at):
                fields = data[at:line_end].split()
                body = end
                try:
                    sid, length = int(fields[2]), int(fields[-1])
                    skip = int(fields[-2]) if data[at] == 72 else 0  # 72: "H", the headers come first
                except (IndexError, ValueError):
                    raise ProtocolError from None
                if not 0 <= skip <= length:
                    raise ProtocolError
                end = body + length + 2
                if end > size:
                    break
                if sid in self.hot:
                    self._deliver(sid, fields[1], data[body + skip : end - 2])
                    at = end
                    continue
            await super().parse(data[at:end])
            if self._resets != resets:
                return  # the operation ended this connection: the bytes behind it are void
            at = end
        if at < size:
            self._rest = data[at:]

    def _deliver(self, sid: int, subject: bytes, payload: bytes) -> None:
        client = self.nc
        client.stats["in_msgs"] += 1
        client.stats["in_bytes"] += len(payload)
        subscription = client._subs.get(sid)  # noqa: SLF001 - the count that nats-py itself keeps
        if subscription is not None:
            subscription._received += 1  # noqa: SLF001
        try:
            self.hot[sid](subject.decode(), payload)
        except Exception as error:  # noqa: BLE001 - one bad message must not end the connection's reader
            self._on_error(error)
