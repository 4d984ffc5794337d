from __future__ import annotations

import pytest

from secbeat import errors
from secbeat.errors import AuthError, ConfigError, RefusedError, SecbeatError, UnreachableError, WaitTimeoutError


@pytest.mark.parametrize(
    ("kind", "exit_code", "status"),
    [
        (SecbeatError, 1, 500),
        (ConfigError, 2, 422),
        (RefusedError, 3, 409),
        (AuthError, 4, 401),
        (UnreachableError, 5, 503),
        (WaitTimeoutError, 6, 504),
    ],
)
def test_each_kind_has_its_exit_code_and_status(kind, exit_code, status):
    error = kind("PORT_IN_USE", why="taken")
    assert (error.exit_code, error.status) == (exit_code, status)


def test_every_kind_has_an_exit_code_of_its_own():
    # Those of the shared tree; a service may refine one of them for itself.
    kinds = [SecbeatError, *(kind for kind in SecbeatError.__subclasses__() if kind.__module__ == "secbeat.errors")]
    assert len({kind.exit_code for kind in kinds}) == len(kinds)


def test_the_remedy_is_the_catalogues_unless_one_is_given():
    assert ConfigError("PORT_IN_USE", why="x").fix == errors.catalogue.lookup("PORT_IN_USE").remedy
    assert ConfigError("PORT_IN_USE", why="x", fix="kill it").fix == "kill it"


def test_command_and_api_say_the_same():
    error = ConfigError("PORT_IN_USE", why="127.0.0.1:3030 is taken", status=400, port=3030)
    problem, lines = error.problem(), error.lines()
    assert problem == {
        "type": "urn:secbeat:error:PORT_IN_USE",
        "title": error.title,
        "status": 400,
        "code": "PORT_IN_USE",
        "detail": "127.0.0.1:3030 is taken",
        "fix": error.fix,
        "port": 3030,
    }
    assert lines[0] == f"error[PORT_IN_USE]: {problem['title']}"
    assert problem["detail"] in lines[1]
    assert problem["fix"] in lines[2]
    assert lines[3].endswith("secbeat explain PORT_IN_USE")


def test_a_code_outside_the_catalogue_is_a_defect_of_the_caller():
    with pytest.raises(KeyError):
        ConfigError("NO_SUCH_CODE", why="x")
