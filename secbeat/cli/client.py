"""The HTTP client of the command: the standard library alone, because every command pays for its imports.

No proxy of the environment is used (the services are machines of one's own), no redirect is followed (a token would
travel with it), every wait has an end.
"""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from secbeat import catalogue
from secbeat.cli.finding import Target
from secbeat.errors import AuthError, ConfigError, RefusedError, SecbeatError, UnreachableError

CONNECT_SECONDS = 4.0
ANSWER_SECONDS = 15.0
_KINDS: dict[int, type[SecbeatError]] = {
    400: ConfigError,
    401: AuthError,
    403: AuthError,
    404: ConfigError,
    405: ConfigError,
    409: RefusedError,
    412: RefusedError,
    413: ConfigError,
    415: ConfigError,
    422: ConfigError,
    423: RefusedError,
    429: RefusedError,
    502: UnreachableError,
    503: UnreachableError,
    504: UnreachableError,
}
# The original's routes answer errors without a body.
_BARE = {401: "NOT_AUTHENTICATED", 403: "NOT_AUTHORISED", 404: "NOT_FOUND"}


def path(*parts: str) -> str:
    """An absolute path; each part is quoted, so an id can never change where the path leads."""
    return "/" + "/".join(quote(part, safe="") for part in parts)


class Client:
    """Requests to one service."""

    def __init__(self, target: Target) -> None:
        self.target = target

    def get(self, *parts: str, **query: object) -> Any:
        """GET; the decoded JSON. See :meth:`request` for the errors."""
        return self.request("GET", path(*parts), query=query)

    def post(self, *parts: str, body: Mapping[str, object] | None = None) -> Any:
        """POST a JSON body; the decoded answer, None if it is empty."""
        return self.request("POST", path(*parts), body=body or {})

    def items(self, *parts: str, **query: object) -> list[dict[str, Any]]:
        """GET a list: a bare array, or ``items`` of an object."""
        found = self.get(*parts, **query)
        if isinstance(found, dict):
            found = found.get("items")
        if not isinstance(found, list):
            raise self._strange("a list was expected")
        return found

    def request(
        self, method: str, where: str, *, query: Mapping[str, object] | None = None, body: object = None
    ) -> Any:
        """One request.

        Raises:
            SecbeatError: what the service answered, by its status: AuthError, RefusedError, ConfigError,
                UnreachableError (also when nothing answers), SecbeatError for the rest.
        """
        with self.open(method, where, query=query, body=body) as response:
            try:
                raw = response.read()
            except (OSError, http.client.HTTPException) as error:
                raise self._unreachable(error) from None
        if not raw.strip():
            return None
        try:
            return json.loads(raw)
        except ValueError:
            raise self._strange(f"{where} is not JSON: {raw[:80]!r}") from None

    @contextmanager
    def open(
        self,
        method: str,
        where: str,
        *,
        query: Mapping[str, object] | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        idle_seconds: float = ANSWER_SECONDS,
    ) -> Iterator[http.client.HTTPResponse]:
        """A response whose body is still to be read, for streams; ``idle_seconds`` is the longest silence in it."""
        connection = self._connection()
        try:
            try:
                connection.connect()
                connection.sock.settimeout(ANSWER_SECONDS)
                connection.request(
                    method, self._address(where, query), self._payload(body), self._headers(body, headers)
                )
                response = connection.getresponse()
                if connection.sock is not None:
                    connection.sock.settimeout(idle_seconds)
                elif response.fp is not None:
                    _settimeout(response, idle_seconds)
                if response.status >= 300:
                    raise self._refused(response.status, response.read(1 << 20))
            except (OSError, http.client.HTTPException) as error:
                raise self._unreachable(error) from None
            yield response
        finally:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        parts = urlsplit(self.target.url)
        host = parts.hostname or ""
        if parts.scheme == "https":
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(host, parts.port, timeout=CONNECT_SECONDS, context=context)
        return http.client.HTTPConnection(host, parts.port, timeout=CONNECT_SECONDS)

    def _address(self, where: str, query: Mapping[str, object] | None) -> str:
        given = {key: value for key, value in (query or {}).items() if value is not None}
        return urlsplit(self.target.url).path + where + (f"?{urlencode(given)}" if given else "")

    @staticmethod
    def _payload(body: object) -> bytes | None:
        return None if body is None else json.dumps(body).encode()

    def _headers(self, body: object, more: Mapping[str, str] | None) -> dict[str, str]:
        headers = {"Accept": "application/json", **(more or {})}
        if body is not None:
            headers["Content-Type"] = "application/json"
        if self.target.token is not None:
            headers["Authorization"] = f"Bearer {self.target.token}"
        return headers

    def _unreachable(self, error: Exception) -> SecbeatError:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, socket.gaierror):
            reason = f"the name does not resolve ({reason})"
        where = f"{self.target.service} at {self.target.url} (from {self.target.source})"
        return UnreachableError("SERVICE_UNREACHABLE", why=f"{where}: {reason}", fix=self._start())

    def _start(self) -> str | None:
        if self.target.service == "provisioner":
            return "Start it: secbeat up   (or name the right one: --provisioner-url URL)"
        return None

    def _strange(self, what: str) -> SecbeatError:
        return SecbeatError("UNEXPECTED_ANSWER", why=f"{self.target.url}: {what}")

    def _refused(self, status: int, raw: bytes) -> SecbeatError:
        """The service's problem+json as the error that it was there."""
        kind = _KINDS.get(status, SecbeatError)
        try:
            problem = json.loads(raw)
            code, why = str(problem["code"]), str(problem.get("detail") or problem.get("title") or "")
        except (ValueError, KeyError, TypeError):
            if status in _BARE:
                return kind(_BARE[status], why=f"{self.target.url} answered {status}", status=status)
            text = " ".join(raw[:120].decode("utf-8", "replace").split())
            return kind("UNEXPECTED_ANSWER", why=f"{self.target.url} answered {status} {text}".rstrip(), status=status)
        known = code in catalogue.ALL
        error = kind(code if known else "UNEXPECTED_ANSWER", why=why, fix=problem.get("fix") or None, status=status)
        error.code = code
        error.title = str(problem.get("title") or error.title)
        return error


def _settimeout(response: http.client.HTTPResponse, seconds: float) -> None:
    # With "Connection: close" http.client hands the socket over to the response; its raw reader still knows it.
    sock = getattr(getattr(response.fp, "raw", None), "_sock", None)
    if isinstance(sock, socket.socket):
        sock.settimeout(seconds)
