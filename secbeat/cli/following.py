"""Commands that follow: events, and the log of a job. A lost connection leaves no gap and no repetition."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from typing import Annotated, Any, cast

import typer

from secbeat.cli import reading
from secbeat.cli.output import Format, note
from secbeat.cli.session import Session, example, with_session

_API = ("api", "v1")
_RETRY_SECONDS = 1.0
_SILENCE_SECONDS = 60.0  # a connection so silent is given up: the service sends comments far more often


@with_session
def events(
    session: Session,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with those to come.")] = False,
    pool: reading.PoolOption = None,
    newest: Annotated[int, typer.Option("--newest", min=0, max=10_000, help="Begin with so many past ones.")] = 20,
    after: Annotated[
        int | None, typer.Option("--after", min=0, metavar="SEQ", help="Begin behind this number; 0: all that is kept.")
    ] = None,
) -> None:
    """Print what happened, one event per line.

    With '-o json' one JSON object per line.
    """
    from secbeat.cli.views import event_line

    for event in _events(session.client, after, newest=newest, follow=follow):
        if pool is None or event.get("pool") == pool:
            session.output.stream(event, event_line(event))


def _events(client: Any, after: int | None, *, newest: int, follow: bool) -> Iterator[dict[str, Any]]:
    """The events, each once, over any number of connections; ``after`` None: the newest ones first."""
    from secbeat.errors import UnreachableError

    place = Place(after)
    while True:
        headers = {"Accept": "text/event-stream"}
        query = {"newest": newest if place.after is None else None, "once": None if follow else 1}
        if place.after is not None:
            headers["Last-Event-ID"] = str(place.after)
        whole = False
        try:
            with client.open(
                "GET", "/api/v1/events", query=query, headers=headers, idle_seconds=_SILENCE_SECONDS
            ) as response:
                place.reached = True
                yield from place.events(response)
                whole = not response.length
        except UnreachableError as error:
            if not (follow and place.reached):
                raise
            note(f"{error.why}; trying again")
        if not follow and (place.whole and whole):
            return
        time.sleep(_RETRY_SECONDS)


class Place:
    """Where a reader of the stream is: what it has, and what it was told of what it will never have."""

    def __init__(self, after: int | None = None) -> None:
        self.after = after
        self.reached = False
        self.whole = False

    def events(self, lines: Any) -> Iterator[dict[str, Any]]:
        """Those of one connection, until it ends (``whole``), is lost, or stays silent too long."""
        self.whole = False
        kind, number, data = b"", None, list[bytes]()
        while True:
            try:
                line = lines.readline()
            except (OSError, ValueError, http.client.HTTPException):  # silence, a reset, a chunk cut short
                return
            if not line.endswith(b"\n"):
                self.whole = not line
                return
            field, _, value = line.rstrip(b"\r\n").partition(b":")
            value = value.removeprefix(b" ")
            if field == b"id" and value.isdigit():
                number = int(value)
            elif field == b"event":
                kind = value
            elif field == b"data":
                data.append(value)
            elif not line.strip():
                found = self._dispatch(kind, data)
                # An event that was cut off has moved nothing: it comes again.
                self.after = self.after if number is None else number
                if found is not None:
                    yield found
                kind, number, data = b"", None, []

    def _dispatch(self, kind: bytes, data: list[bytes]) -> dict[str, Any] | None:
        if not data:
            return None
        found = json.loads(b"\n".join(data))
        if kind != b"gap":
            return cast("dict[str, Any]", found)
        oldest = found.get("oldest") if isinstance(found, dict) else None
        first = 1 if self.after is None else self.after + 1
        which = f"{first} to {oldest - 1}" if isinstance(oldest, int) and oldest > first else "in between"
        note(f"Events {which} are no longer kept: they are missing here.")
        return None


@reading.jobs.command("log", epilog=example("secbeat jobs log 01JD2K", "secbeat jobs log 01JD2K -f"))
@with_session
def job_log(
    session: Session,
    job: Annotated[str, typer.Argument(help="Operation id, or its beginning.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    provisioner_url: Annotated[
        str | None, typer.Option("--provisioner-url", help="Environment: SECBEAT_PROVISIONER_URL.")
    ] = None,
) -> None:
    """Print a job's log.

    As it was written, byte for byte; with '-o json' one object per line of it. The log lies with the provisioner.
    With -f the exit code is the job's: 0 succeeded, 1 failed or cancelled; without it 0 says that the log was read.
    """
    from secbeat.cli.log_copy import Lines, Raw, copy_log

    client = session.provisioner(provisioner_url)
    op_id = _job_id(session, job, follow=follow)
    if follow:
        _until_there(session, client, op_id)
    sink = Raw() if session.output.format is Format.TABLE else Lines(session.output)
    ended = copy_log(client, op_id, sink, follow=follow)
    if ended is not None:
        _tell_end(ended)


def _job_id(session: Session, given: str, *, follow: bool) -> str:
    from secbeat.cli import resolving
    from secbeat.errors import SecbeatError

    if len(given) == 26:
        return given.upper()
    try:
        return resolving.op_id(session.client, given, of="jobs")
    except SecbeatError as error:
        if not (follow and error.code == "NOT_FOUND"):
            raise
        return resolving.op_id(session.client, given)


def _until_there(session: Session, client: Any, op_id: str) -> None:
    """Until the provisioner has the job: its operation may have been written a moment ago."""
    from secbeat.errors import SecbeatError, UnreachableError

    said = ""
    while True:
        try:
            state = client.get("jobs", op_id).get("state")
        except UnreachableError:
            raise
        except SecbeatError as error:
            if error.code != "NOT_FOUND" or (operation := _open_operation(session, op_id)) is None:
                raise
            line = f"Operation {op_id} is {operation['state']}; the provisioner has no job of it yet"
        else:
            if state == "queued":
                note(f"Job {op_id} is queued")
            return
        if line != said:
            said = line
            note(line)
        time.sleep(_RETRY_SECONDS)


def _open_operation(session: Session, op_id: str) -> dict[str, Any] | None:
    from secbeat.errors import SecbeatError

    try:
        found: dict[str, Any] = session.client.get(*_API, "operations", op_id)
    except SecbeatError:  # then what the provisioner said stands
        return None
    return found if found.get("state") not in {"succeeded", "failed", "cancelled", "needs_operator"} else None


def _tell_end(job: dict[str, Any]) -> None:
    from secbeat.errors import SecbeatError

    if job["state"] == "succeeded":
        note(f"Job {job['op_id']} succeeded")
        return
    error = job.get("error") or {}
    detail = f": {error['code']}: {error['message']}" if error else ""
    raise SecbeatError(
        "WORK_FAILED", why=f"job {job['op_id']} {job['state']}{detail}", fix=f"secbeat jobs show {job['op_id']}"
    )
