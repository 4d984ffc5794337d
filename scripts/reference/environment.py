"""The environment variables that the programs read."""

from __future__ import annotations

from scripts.reference.tables import table

VARIABLES = {
    "SECBEAT_CONFIG": "The configuration file, where no `--config` is given.",
    "SECBEAT_URL": "The orchestrator that client commands talk to, where no `--url` is given.",
    "SECBEAT_PROVISIONER_URL": "The provisioner that `secbeat jobs log` reads from.",
    "SECBEAT_TOKEN_FILE": "A file of mode 0600 with the API token, where no `--token-file` is given.",
    "SECBEAT_STATE": "The state directory whose running instance client commands find, where no `--state` is given.",
    "XDG_STATE_HOME": "The default state directory is `secbeat` in it (unset: `~/.local/state`).",
    "NO_COLOR": "Set to anything: no colour.",
    "TERM": "`dumb`: `secbeat up` shows log lines instead of its live view.",
}
_HEAD = """# Environment variables

"""
_TAIL = """
Every key of the [configuration](configuration.md) can be set as well: `SECBEAT_`, the table, two underscores, the key.
It stands over the file and under the flags.

```sh
SECBEAT_PROVISIONER__MAX_CONCURRENT_JOBS=4 secbeat provisioner --config secbeat.toml
```

A variable that names no key stops the start with the key that was probably meant. There is no variable for a secret:
secrets are named by file (`SECBEAT_TOKEN_FILE`, `webhook_secret_file`, `auth_token_file`), because an environment can
be read by whoever may list processes.

What a playbook sees is made from nothing: `HOME`, `USER`, `LOGNAME`, `TZ`, `SSH_AUTH_SOCK`, a `PATH` that begins with
SecBeat's own programs, UTF-8, and Ansible's own settings. No variable of the service reaches it.
"""


def page() -> str:
    """The page."""
    rows = ((f"`{name}`", meaning) for name, meaning in VARIABLES.items())
    return _HEAD + table(["variable", "meaning"], rows) + _TAIL
