"""Commands that follow: events, and the log of a job. A lost connection leaves no gap and no repetition."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Annotated, Any

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
    from secbeat.errors import UnreachableError

    reached = False
    while True:
        headers = {"Accept": "text/event-stream"} | ({} if after is None else {"Last-Event-ID": str(after)})
        query = {"newest": newest if after is None else None, "once": None if follow else 1}
        try:
            with client.open(
                "GET", "/api/v1/events", query=query, headers=headers, idle_seconds=_SILENCE_SECONDS
            ) as response:
                reached, newest = True, 0
                for number, event in parse_events(response):
                    after = number if number is not None else after
                    yield event
        except UnreachableError as error:
            if not (follow and reached):
                raise
            note(f"{error.why}; trying again")
        if not follow:
            return
        time.sleep(_RETRY_SECONDS)


def parse_events(lines: Any) -> Iterator[tuple[int | None, dict[str, Any]]]:
    """The events of a Server-Sent Events stream as (id, data), until it ends or stays silent too long."""
    number: int | None = None
    kind, data = b"", list[bytes]()
    while True:
        try:
            line = lines.readline()
        except (OSError, ValueError):  # silence, a reset, or a chunk cut short: the caller resumes after the last id
            return
        if not line.endswith(b"\n"):
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
            if kind == b"gap":
                note("Some events in between are no longer kept.")
            elif data:
                yield number, json.loads(b"\n".join(data))
            kind, data = b"", []


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
    """
    from secbeat.cli import resolving
    from secbeat.cli.log_copy import Lines, Raw, copy_log

    client = session.provisioner(provisioner_url)
    op_id = job.upper() if len(job) == 26 else resolving.op_id(session.client, job, of="jobs")
    sink = Raw() if session.output.format is Format.TABLE else Lines(session.output)
    copy_log(client, op_id, sink, follow=follow)
