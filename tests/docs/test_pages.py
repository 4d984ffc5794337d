"""What the tests of the documentation rest on: blocks as a reader sees them, output compared as promised."""

from __future__ import annotations

import pytest

from tests.docs.pages import blocks, commands, like


@pytest.mark.parametrize(
    ("expected", "printed", "missing"),
    [
        ("one\ntwo\n", "one\nbetween\ntwo\n", None),
        ("one\ntwo\n", "two\none\n", "two"),
        ("POOL  SIZE …\nweb  3/3 …\n", "POOL  SIZE  MIN\nweb    3/3    2\n", None),
        ("web  3/3 …\n", "web  2/3  2\n", "web  3/3 …"),
        ("… rack active …\n… rack active …\n", "n1  rack  active  2s\n", "… rack active …"),
        ('{"path": "/hello", …}\n', '{"path": "/hello", "body": 0}\n', None),
        ("Ready: … checks\n", "Not ready: 2 problems\n", "Ready: … checks"),
        ("", "anything\n", None),
    ],
)
def test_output_is_what_the_page_says_in_its_order(expected, printed, missing):
    assert like(expected, printed) == missing


def test_blocks_know_their_file_their_sign_and_what_they_follow(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "Write `a/b.toml`:\n\n<!-- ci: replaced, why -->\n```toml\nx = 1\n```\n\n"
        "<!-- ci: stays -->\n```sh\nrun # it\n```\n"
        "```text\nsaid\n```\n\n1. In a list:\n\n   ```sh\n   first \\\n     second\n   ```\n"
    )
    toml, stays, said, listed = blocks(page)
    assert (toml.file, toml.sign, toml.text) == ("a/b.toml", "replaced", "x = 1\n")
    assert (stays.file, stays.sign, list(commands(stays))) == (None, "stays", ["run"])
    assert said.follows
    assert not stays.follows
    assert list(commands(listed)) == ["first second"]


def test_a_here_document_is_no_command(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```sh\npython - <<'END'\nsecbeat nonsense\nEND\nsecbeat pools\n```\n")
    (block,) = blocks(page)
    assert [line for line in commands(block) if "secbeat" in line] == ["secbeat pools"]
