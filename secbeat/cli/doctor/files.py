"""Checks of what lies on the disk: configuration, state directory, secrets."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from secbeat.cli.doctor.finding import Finding
from secbeat.errors import ConfigError
from secbeat.paths import StateDir

if TYPE_CHECKING:
    from secbeat.settings import Loaded, Settings

_SOON_DAYS = 14
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def configuration(path: Path | None) -> tuple[Loaded | None, list[Finding]]:
    """Load the configuration; what is wrong with it, in the words of the error that a service would end with."""
    from secbeat.cli.configuring import contradictions
    from secbeat.settings import load

    try:
        loaded = load(path)
    except ConfigError as error:
        return None, [Finding("configuration", "file", "fail", f"{error.code}: {error.why}", error.fix)]
    named = str(path) if path else "no file: defaults and the environment"
    found = [Finding("configuration", "file", "ok", f"{named}; pools {', '.join(sorted(loaded.settings.pools))}")]
    found += [
        Finding("configuration", "plausible", "warn", sentence, f"Mend it, then: secbeat config check {path or 'FILE'}")
        for sentence in contradictions(loaded.settings)
    ]
    if path is not None and loaded.settings.management.auth_token is not None and path.stat().st_mode & _OTHERS:
        detail = f"{path} holds auth_token and has mode {stat.S_IMODE(path.stat().st_mode):04o}"
        found.append(Finding("configuration", "file mode", "warn", detail, f"chmod 600 {path}"))
    return loaded, found


def secrets(settings: Settings) -> Iterator[Finding]:
    """Every secret file that the configuration names: there, private, no placeholder."""
    from secbeat.auth import read_secret

    orchestrator, provisioner = settings.orchestrator, settings.provisioner
    named = {
        "orchestrator.webhook_secret_file": orchestrator.webhook_secret_file,
        "orchestrator.webhook_bearer_token_file": orchestrator.webhook_bearer_token_file,
        "provisioner.webhook_secret_file": provisioner.webhook_secret_file,
        "provisioner.previous_webhook_secret_file": provisioner.previous_webhook_secret_file,
        "provisioner.service_token_file": provisioner.service_token_file,
        "management.auth_token_file": settings.management.auth_token_file,
        "notifications.secret_file": settings.notifications.secret_file,
        "nats.creds_file": settings.nats.creds_file,
        "nats.issuer_seed_file": settings.nats.issuer_seed_file,
    }
    for key, path in named.items():
        if path is None:
            continue
        try:
            read_secret(path)
        except ConfigError as error:
            yield Finding("secrets", key, "fail", error.why, error.fix)
        else:
            yield Finding("secrets", key, "ok", f"{path} is private")


def listeners(settings: Settings) -> Iterator[Finding]:
    """What listens beyond this machine is encrypted, its certificate is valid, and both ends share a secret."""
    from secbeat import binding

    checks: dict[str, Callable[[], None]] = {
        "orchestrator": partial(binding.check_orchestrator, settings.orchestrator),
        "provisioner": partial(binding.check_provisioner, settings.provisioner),
    }
    for name, check in checks.items():
        try:
            check()
        except ConfigError as error:
            yield Finding("listeners", f"{name} binding", "fail", error.why, error.fix)
        else:
            yield Finding("listeners", f"{name} binding", "ok", "loopback, encrypted, or allowed by allow_plaintext")
    for name, tls in (("orchestrator", settings.orchestrator.tls), ("provisioner", settings.provisioner.tls)):
        if tls.cert_file is not None:
            yield _certificate(name, tls.cert_file, tls.key_file)
    yield from _shared_secret(settings)


def _certificate(name: str, cert: Path, key: Path | None) -> Finding:
    import ssl
    import time

    from secbeat.telemetry.certificates import expiry

    label = f"{name} certificate"
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except OSError as error:  # an SSLError is one as well
        reason = (
            "certificate and key do not belong together, or are no PEM" if error.strerror is None else error.strerror
        )
        remedy = f"ls -l {cert} {key}; openssl x509 -in {cert} -noout -subject -enddate"
        return Finding("listeners", label, "fail", f"{cert}: {getattr(error, 'reason', None) or reason}", remedy)
    left = (expiry(cert)() or 0.0) - time.time()
    if left <= 0:
        return Finding("listeners", label, "fail", f"{cert} has expired", f"Renew it, then restart the {name}")
    days = int(left // 86400)
    if days < _SOON_DAYS:
        return Finding(
            "listeners", label, "warn", f"{cert} expires in {days} days", f"Renew it, then restart the {name}"
        )
    return Finding("listeners", label, "ok", f"valid for {days} days")


def _shared_secret(settings: Settings) -> Iterator[Finding]:
    """Where one file configures both ends of the webhook, both must have the same secret."""
    from secbeat.auth import read_secret

    ours, theirs = settings.orchestrator.webhook_secret_file, settings.provisioner.webhook_secret_file
    if ours is None or theirs is None:
        return
    try:
        same = read_secret(ours) == read_secret(theirs)
    except ConfigError:
        return  # said among the secrets
    if same:
        yield Finding("secrets", "webhook", "ok", "orchestrator and provisioner share one secret")
    else:
        detail = f"{ours} and {theirs} differ: the provisioner refuses every webhook"
        yield Finding("secrets", "webhook", "fail", detail, f"install -m 600 {ours} {theirs}")


def state(directory: Path) -> Iterator[Finding]:
    """The state directory: usable, and closed to others with all its secrets."""
    if not directory.exists():
        parent = next(one for one in directory.parents if one.exists())
        if not os.access(parent, os.W_OK | os.X_OK):
            detail = f"{directory} does not exist, and {parent} cannot be written"
            yield Finding("state", "directory", "fail", detail, "Choose another: --state DIR")
        else:
            yield Finding("state", "directory", "ok", f"{directory} will be made at the first start")
        return
    if not directory.is_dir() or not os.access(directory, os.R_OK | os.W_OK | os.X_OK):
        remedy = f"sudo chown -R $(id -u) {directory}; chmod 700 {directory}"
        yield Finding("state", "directory", "fail", f"{directory} cannot be used by this user", remedy)
        return
    yield Finding("state", "directory", "ok", f"{directory}")
    yield _modes(StateDir(directory))


def _modes(place: StateDir) -> Finding:
    suspects = [place.path, place.secrets, *(place.secrets.rglob("*") if place.secrets.is_dir() else ())]
    opened = [path for path in suspects if path.exists() and path.stat().st_mode & _OTHERS]
    if opened:
        detail = f"others may use {', '.join(map(str, opened[:3]))}" + (" and more" if len(opened) > 3 else "")
        return Finding("state", "modes", "fail", detail, f"chmod -R go-rwx {place.path}")
    return Finding("state", "modes", "ok", "private")
