from __future__ import annotations

import pytest
import yaml

from provisioner.engine import extravars


class Loader(yaml.SafeLoader):
    """Reads !unsafe as (tag, text), so that a test sees what is marked."""


Loader.add_constructor("!unsafe", lambda _loader, node: ("unsafe", node.value))


def load(text):
    return yaml.load(text, Loader)


def strings(tree):
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield key
            yield from strings(value)
    elif isinstance(tree, list):
        for item in tree:
            yield from strings(item)
    else:
        yield tree


def test_every_string_of_the_request_and_the_site_is_marked_keys_included():
    request = {"reason": "{{ x }}", "list": ["a", {"b": "c"}], "number": 1, "none": None}
    text = extravars.render(request=request, site={"dir": "/{{ y }}"}, variables={})
    found = load(text)
    for part in (found["secbeat_request"], found["secbeat_site"]):
        assert all(not isinstance(one, str) for one in strings(part))
    assert found["secbeat_request"][("unsafe", "reason")] == ("unsafe", "{{ x }}")


def test_the_operators_variables_are_not_marked():
    found = load(extravars.render(request={}, site={}, variables={"image": "{{ base }}-12", "sizes": [1, "two"]}))
    assert found["image"] == "{{ base }}-12"
    assert found["sizes"] == [1, "two"]


@pytest.mark.parametrize(
    "value", ["\U0001f600 é \u2028", "a\nb\tc", "\x01\x7f", "'\"\\", "!unsafe x", "--- \n...", "~"]
)
def test_any_text_survives_the_file(value):
    found = load(extravars.render(request={"k": value}, site={}, variables={}))
    assert found["secbeat_request"][("unsafe", "k")] == ("unsafe", value)


def test_the_request_cannot_be_replaced_by_a_variable():
    found = load(extravars.render(request={"k": "v"}, site={}, variables={"secbeat_request": "mine"}))
    assert found["secbeat_request"] == {("unsafe", "k"): ("unsafe", "v")}


@pytest.mark.parametrize(
    "name",
    ["ansible_connection", "ansible_python_interpreter", "hostvars", "groups", "omit", "secbeat_request", "secbeat_x",
     "Upper", "with-dash", "1st", "", "a b", "x" * 65, "environment", "{{ x }}"],
)  # fmt: skip
def test_names_that_would_change_how_the_play_runs_are_refused(name):
    assert extravars.check_name(name)


@pytest.mark.parametrize("name", ["image", "secbeat_node_backend", "_private", "size_gb", "x" * 64])
def test_ordinary_names_are_accepted(name):
    assert extravars.check_name(name) is None
