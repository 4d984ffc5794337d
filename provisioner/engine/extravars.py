"""``env/extravars``: how a request reaches a playbook as data.

Ansible templates and executes extra vars: ``{{ lookup('pipe', …) }}`` in one runs a command. A string tagged
``!unsafe`` in a YAML file is never templated, however a play uses it, so every string that we did not get from the
operator's own configuration carries the tag, keys included.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

try:  # libyaml's is several times faster, and not in every build of PyYAML
    from yaml import CSafeDumper as _SafeDumper
except ImportError:
    from yaml import SafeDumper as _SafeDumper  # type: ignore[assignment]  # the same interface

_NAME = re.compile(r"^[a-z_][a-z0-9_]{0,63}$")
OWN_PREFIX = "secbeat_node_"
# Names that Ansible or Jinja gives a meaning to; a variable of that name would change how the play runs.
_MAGIC = frozenset({
    "environment", "group_names", "groups", "hostvars", "inventory_dir", "inventory_file", "inventory_hostname",
    "inventory_hostname_short", "item", "lookup", "omit", "play_hosts", "playbook_dir", "q", "query",
    "role_name", "role_names", "role_path", "vars", "action", "connection", "port", "remote_user", "become",
    "become_user", "become_method", "delegate_to", "no_log", "tags", "when",
})  # fmt: skip


class _Unsafe(str):
    __slots__ = ()


class _Dumper(_SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def _represent(dumper: _Dumper, value: _Unsafe) -> yaml.ScalarNode:
    return dumper.represent_scalar("!unsafe", str(value), style='"')


_Dumper.add_representer(_Unsafe, _represent)


def check_name(name: str) -> str | None:
    """Why a blueprint may not set a variable of this name, or None."""
    if not _NAME.fullmatch(name):
        return "is not a variable name (lower case, digits, underscores)"
    if name.startswith("ansible_"):
        return "would change how Ansible itself connects and runs; set it in the inventory"
    if name in _MAGIC:
        return "has a meaning of its own in Ansible"
    if name.startswith("secbeat_") and not name.startswith(OWN_PREFIX):
        return f"is reserved (only {OWN_PREFIX}… may be set)"
    return None


def unsafe(value: Any) -> Any:
    """``value`` with every string in it, keys included, marked as data."""
    if isinstance(value, str):
        return _Unsafe(value)
    if isinstance(value, dict):
        return {_Unsafe(key) if isinstance(key, str) else key: unsafe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [unsafe(item) for item in value]
    return value


def render(*, request: dict[str, Any], site: dict[str, Any], variables: dict[str, Any]) -> str:
    """The file's text.

    Args:
        request: what came over the wire; becomes ``secbeat_request``.
        site: where things are on this machine; becomes ``secbeat_site``.
        variables: the blueprint's own, trusted: their Jinja is the operator's and is evaluated.
    """
    content = {**variables, "secbeat_request": unsafe(request), "secbeat_site": unsafe(site)}
    return yaml.dump(content, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=1 << 20)
