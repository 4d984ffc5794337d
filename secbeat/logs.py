"""Logging: one event per line, JSON unless a person watches, UTC, with stable keys beside the sentence."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path

from secbeat.errors import ConfigError
from secbeat.telemetry import context

# Attributes that every LogRecord has; whatever else stands on a record came in through ``extra``.
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_MAX_FILE_BYTES = 50 * 1024 * 1024


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _one_line(text: str) -> str:
    """Control characters made visible: what came over the wire must not forge a line nor steer a terminal."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in record.__dict__.items() if key not in _STANDARD}


class JsonFormatter(logging.Formatter):
    """One JSON object per line, valid against ``secbeat/telemetry/log.schema.json``."""

    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _moment(record),
            "level": record.levelname,
            "service": self._service,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (trace := context.parse(context.current())) is not None:
            line["trace_id"], line["span_id"] = trace
        for key, value in _extra(record).items():
            line.setdefault(key, value)
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class PlainFormatter(logging.Formatter):
    """For people and for grep: time, level, logger, sentence, then the keys."""

    def format(self, record: logging.LogRecord) -> str:
        keys = " ".join(f"{key}={value}" for key, value in _extra(record).items())
        text = f"{_moment(record)} {record.levelname:<7} {record.name}: {record.getMessage()}"
        text = _one_line(f"{text}  {keys}" if keys else text)
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def configure(service: str, *, log_file: Path | None = None, to_stderr: bool = True, level: int = logging.INFO) -> None:
    """Set up the root logger of this process.

    Standard error gets plain lines on a terminal and JSON elsewhere; the file always gets plain lines (the guide's
    ``grep`` reads it) and is rotated at 50 MiB, three kept.

    Raises:
        ConfigError: the log file cannot be written (STATE_NOT_WRITABLE).
    """
    handlers: list[logging.Handler] = []
    if to_stderr:
        stream = logging.StreamHandler(sys.stderr)
        stream.setFormatter(PlainFormatter() if sys.stderr.isatty() else JsonFormatter(service))
        handlers.append(stream)
    if log_file is not None:
        try:
            log_file.parent.mkdir(parents=True, exist_ok=True)
            file = RotatingFileHandler(log_file, maxBytes=_MAX_FILE_BYTES, backupCount=3, encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                "STATE_NOT_WRITABLE",
                why=f"log file {log_file}: {error.strerror}",
                fix=f"Set {service}.log_file to a path that this user may write, or start in a writable directory",
            ) from None
        file.setFormatter(PlainFormatter())
        handlers.append(file)
    logging.basicConfig(level=level, handlers=handlers, force=True)
    # nats-py and aiohttp log each reconnect attempt and each request; we log the transitions ourselves.
    for noisy in ("nats", "aiohttp.access", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
