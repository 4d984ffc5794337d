"""The environment variables that the programs read: those of ``secbeat help environment``, and a few more."""

from __future__ import annotations

from scripts.reference.tables import table, text
from secbeat.cli.helping import ENVIRONMENT

# Beyond those of `secbeat help environment`: read by libraries or by one part only.
_FURTHER = {
    "XDG_STATE_HOME": "The default state directory is `secbeat` in it (unset: `~/.local/state`).",
    "TERM": "`dumb`: `secbeat up` shows log lines instead of its live view.",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "Set: traces are sent there ([Monitoring](../howto/monitoring.md)).",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "The same, for traces only.",
    "OTEL_SDK_DISABLED": "`true`: no traces, whatever else is set.",
}
VARIABLES = {**{name: text(meaning) for name, meaning in ENVIRONMENT.items()}, **_FURTHER}
_HEAD = """# Environment variables

"""
_TAIL = """
Every key of the [configuration](configuration.md) can be set as well: `SECBEAT_`, the table, two underscores, the key.
It stands over the file and under the flags.

```sh
SECBEAT_PROVISIONER__MAX_CONCURRENT_JOBS=4 secbeat provisioner --config secbeat.toml
```

A variable that names no key stops the start with the key that was probably meant. Name a secret by its file
(`SECBEAT_TOKEN_FILE`, `webhook_secret_file`, `auth_token_file`): an environment is inherited by every child process.

What a playbook sees is made from nothing: `HOME`, `USER`, `LOGNAME`, `TZ`, `SSH_AUTH_SOCK`, a `PATH` that begins with
SecBeat's own programs, a `TMPDIR` of the job, UTF-8, Ansible's own settings and, while traces are on, `TRACEPARENT`. No
other variable of the service reaches it.
"""


def page() -> str:
    """The page."""
    rows = ((f"`{name}`", meaning) for name, meaning in VARIABLES.items())
    return _HEAD + table(["variable", "meaning"], rows) + _TAIL
