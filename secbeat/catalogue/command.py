"""What the command itself says: wrong usage, a service that does not answer, a wait that ended."""

from __future__ import annotations

from secbeat.catalogue._entry import Entry

ENTRIES: tuple[Entry, ...] = (
    Entry(
        "USAGE",
        "error",
        "The command was not understood",
        "An unknown command or option, a missing argument, or a value of the wrong form.",
        "See the options and an example: secbeat COMMAND --help",
    ),
    Entry(
        "DURATION_INVALID",
        "error",
        "That is no duration",
        "A duration is a number with a unit: s, m, h or d; several may follow each other (1h30m).",
        "Write it like 90s, 5m, 2h or 1d",
    ),
    Entry(
        "TIME_INVALID",
        "error",
        "That is no point in time",
        "A time is RFC 3339 (2026-01-31T03:00:00Z), or a duration that means so long ago (15m).",
        "Write it like 2026-01-31T03:00:00Z, or 15m for fifteen minutes ago",
    ),
    Entry(
        "ID_AMBIGUOUS",
        "error",
        "Several ids begin like this",
        "An id may be shortened as long as it names one thing.",
        "Give more characters of the id",
    ),
    Entry(
        "UNKNOWN_CODE",
        "error",
        "There is no such code",
        "The catalogue of this version does not have it; a newer service may.",
        "List all codes: secbeat explain",
    ),
    Entry(
        "CODE_UNDOCUMENTED",
        "error",
        "The code is known, and it is another program's",
        "It is passed on as it came; what it means stands in the documentation of the program that sends it.",
        "Read what the message says of it, or the documentation of the sender",
    ),
    Entry(
        "URL_INVALID",
        "error",
        "That is no address of a service",
        "An address is http://HOST:PORT or https://HOST:PORT.",
        "Write it like http://127.0.0.1:3030",
    ),
    Entry(
        "SERVICE_UNREACHABLE",
        "error",
        "The service does not answer",
        "Nothing listens at the address, the network does not lead there, or the service hangs.",
        "Start it: secbeat up   (or name the right one: --url URL)",
    ),
    Entry(
        "UNEXPECTED_ANSWER",
        "error",
        "The answer is not one of this service",
        "Another program listens at the address, a proxy stands between, or the versions are too far apart.",
        "Check the address, and that the command and the service have the same version: secbeat --version",
    ),
    Entry(
        "WAIT_TIMED_OUT",
        "error",
        "The wait ended before the work did",
        "The time given by --timeout is over; the work goes on by itself.",
        "Follow it: secbeat operations; or wait longer: --timeout 1h",
    ),
    Entry(
        "WORK_FAILED",
        "error",
        "The work that was waited for failed",
        "The operation ended as failed, cancelled or needs_operator.",
        "See why: secbeat operations show OP and secbeat jobs log OP",
    ),
    Entry(
        "WAIT_POINTLESS",
        "error",
        "What was asked for cannot happen now",
        "The pool only observes, or another request has replaced this one, so the wait would never end.",
        "See what holds the pool: secbeat why POOL",
    ),
    Entry(
        "FILE_EXISTS",
        "error",
        "The file exists already",
        "A file that holds a secret is never overwritten.",
        "Remove it, or name another file",
    ),
    Entry(
        "FILE_NOT_WRITABLE",
        "error",
        "The file cannot be written",
        "Its directory does not exist, or this user may not write there.",
        "Name a file in a directory that this user may write",
    ),
    Entry(
        "UNHEALTHY",
        "error",
        "Something on this machine needs attention",
        "At least one check of 'secbeat doctor' failed.",
        "Apply the remedies that are printed beside the failed checks, then: secbeat doctor",
    ),
)
