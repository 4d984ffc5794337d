from __future__ import annotations

import json
import logging
import sys

import pytest

from secbeat import logs
from secbeat.errors import ConfigError


@pytest.fixture(autouse=True)
def untouched_root():
    """``configure`` changes the process's root logger: put it back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    noisy = {name: logging.getLogger(name).level for name in ("nats", "aiohttp.access", "asyncio")}
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:], root.level = handlers, level
    for name, was in noisy.items():
        logging.getLogger(name).setLevel(was)


def record(message: str = "Scaled %s", *arguments: object, **extra: object) -> logging.LogRecord:
    made = logging.getLogger("ResourceManager").makeRecord(
        "ResourceManager",
        logging.INFO,
        __file__,
        1,
        message,
        arguments or ("default",) if "%s" in message else (),
        None,
        extra=extra,
    )
    made.created = 1_780_000_000.1234
    return made


def test_json_is_one_object_with_stable_keys_and_the_extra_ones():
    line = logs.JsonFormatter("orchestrator").format(record(pool="default", size=3))
    assert json.loads(line) == {
        "time": "2026-05-28T20:26:40.123Z",
        "level": "INFO",
        "service": "orchestrator",
        "logger": "ResourceManager",
        "message": "Scaled default",
        "pool": "default",
        "size": 3,
    }


def test_json_keeps_its_own_keys_whatever_the_extra_ones_are_called():
    line = json.loads(logs.JsonFormatter("orchestrator").format(record(time="x", level="x", service="x")))
    assert line["level"] == "INFO"
    assert line["service"] == "orchestrator"
    assert line["time"].startswith("2026")


def test_json_writes_what_json_does_not_know_as_text():
    assert json.loads(logs.JsonFormatter("x").format(record(path=logging)))["path"].startswith("<module")


def test_the_plain_line_has_time_level_logger_sentence_and_keys():
    line = logs.PlainFormatter().format(record(pool="default"))
    assert line == "2026-05-28T20:26:40.123Z INFO    ResourceManager: Scaled default  pool=default"


@pytest.mark.parametrize("formatter", [logs.JsonFormatter("x"), logs.PlainFormatter()])
@pytest.mark.parametrize(
    "hostile",
    [
        "a\n2026-01-01T00:00:00.000Z INFO    ResourceManager: forged",
        "\x1b[2J",
        "a\rb",
        "\x9b2J",
        "a\u2028b",
        "\udcff",
        "\0",
    ],
)
def test_hostile_text_forges_no_line_and_steers_no_terminal(formatter, hostile):
    for one in (record("Node %s joined", hostile), record("Node joined", region=hostile)):
        line = formatter.format(one)
        assert len(line.splitlines()) == 1
        assert line.encode().isascii() or line.isprintable()
        assert line.isprintable()


@pytest.mark.parametrize("formatter", [logs.JsonFormatter("x"), logs.PlainFormatter()])
def test_an_exception_is_logged_with_its_traceback(formatter):
    one = record()
    try:
        raise RuntimeError("a defect")  # noqa: TRY301 - it is the test's own
    except RuntimeError:
        one.exc_info = sys.exc_info()
    assert "RuntimeError: a defect" in formatter.format(one)


def test_the_file_gets_plain_lines_that_grep_finds(tmp_path):
    file = tmp_path / "logs" / "orchestrator.log"
    logs.configure("orchestrator", log_file=file, to_stderr=False)
    logging.getLogger("ResourceManager").info("scaling up %s", "default", extra={"action": "scale_up"})
    logging.getLogger("nats").info("reconnecting")
    logging.getLogger("aiohttp.access").info("GET /")
    (line,) = file.read_text().splitlines()
    assert "ResourceManager: scaling up default  action=scale_up" in line


def test_standard_error_gets_json_where_nobody_watches(capsys):
    logs.configure("orchestrator")
    logging.getLogger("x").warning("a sentence")
    assert json.loads(capsys.readouterr().err)["message"] == "a sentence"


def test_configuring_twice_does_not_write_twice(capsys):
    logs.configure("orchestrator")
    logs.configure("orchestrator")
    logging.getLogger("x").warning("a sentence")
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_file_that_cannot_be_written_is_refused_with_the_key_to_change(tmp_path):
    (tmp_path / "logs").write_text("a file in the place of the directory")
    with pytest.raises(ConfigError, match="STATE_NOT_WRITABLE") as refusal:
        logs.configure("orchestrator", log_file=tmp_path / "logs" / "x.log", to_stderr=False)
    assert "orchestrator.log_file" in refusal.value.fix
