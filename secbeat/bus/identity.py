"""Who may do what on NATS: an operator, one account, a user per role and one per node.

The embedded server trusts the operator; the orchestrator holds the account's signing key ("issuer") and makes each
node a user that can publish its own heartbeats, hear its own commands and answer them, and nothing else.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from secbeat import ids, subjects
from secbeat.auth import read_secret, write_secret
from secbeat.bus import jwt

Role = Literal["orchestrator", "provisioner", "admin"]

_NODE_PAYLOAD_BYTES = 8192
_NODE_SUBSCRIPTIONS = 10
_REPLY_SECONDS = 60
_JS = "$JS.API"


def _streams(*names: str) -> list[str]:
    """What a client needs to use (and, the first time, make) these streams, and no others."""
    verbs = ("STREAM.CREATE", "STREAM.INFO", "STREAM.UPDATE", "STREAM.MSG.GET")
    consumer_verbs = ("CREATE", "DURABLE.CREATE", "INFO", "DELETE", "MSG.NEXT")
    return [
        f"{_JS}.INFO",
        *(f"{_JS}.{verb}.{name}" for name in names for verb in verbs),
        *(f"{_JS}.CONSUMER.{verb}.{name}.>" for name in names for verb in consumer_verbs),
        *(f"{_JS}.CONSUMER.CREATE.{name}" for name in names),
        *(f"$JS.ACK.{name}.>" for name in names),
    ]


def _role_permissions(role: Role) -> dict[str, Any]:
    inbox = f"_INBOX.{role}.>"
    state, jobs = f"KV_{subjects.STATE_BUCKET}", f"KV_{subjects.JOBS_BUCKET}"
    queue, ledger = subjects.JOBS_STREAM, subjects.LEDGER_STREAM
    if role == "admin":
        return {"pub": {"allow": [">"]}, "sub": {"allow": [">"]}}
    if role == "orchestrator":
        # Reads the provisioners' records, writes none of them, and never touches their queue.
        publish = ["secbeat.>", f"$KV.{subjects.STATE_BUCKET}.>", *_streams(state, jobs, ledger)]
        return {
            "pub": {"allow": publish, "deny": [subjects.QUEUE_SUBJECTS]},
            "sub": {"allow": ["secbeat.>", inbox]},
            "resp": _replies(),
        }
    publish = [
        subjects.job_hint("*"),
        subjects.QUEUE_SUBJECTS,
        subjects.EVENTS,
        subjects.ledger("*", "audit_provisioner"),  # its own audit, beside the orchestrator's, which it cannot write
        f"$KV.{subjects.JOBS_BUCKET}.>",
        *_streams(jobs, queue),
    ]
    return {"pub": {"allow": publish}, "sub": {"allow": [subjects.HEARTBEATS, subjects.JOB_HINTS, inbox]}}


def _replies() -> dict[str, int]:
    return {"max": 1, "ttl": _REPLY_SECONDS * 1_000_000_000}


def _user(permissions: dict[str, Any], account: str, **limits: Any) -> dict[str, Any]:
    unlimited = {"subs": -1, "data": -1, "payload": -1}
    return {**permissions, **unlimited, **limits, "issuer_account": account, "type": "user"}


def new_user_keys() -> tuple[str, str]:
    """A fresh user key pair: (seed, public key). A node makes its own; the seed never leaves it."""
    return jwt.new_keys(jwt.USER)


def mint_node_user(  # noqa: PLR0917 - six plain values, named at every call
    issuer_seed: str, account: str, node_id: str, public_key: str, ttl_seconds: float, now: float
) -> str:
    """The token of a node's NATS user, signed with the account's signing key.

    The permissions stand in the token itself (a signing key with a scope of its own would refuse it): a key without a
    scope must not turn a node into a user that may do anything. Renewal is a new token for the same ``public_key``,
    used on a fresh connection before the old one ends.

    Args:
        issuer_seed: seed of a signing key of ``account``.
        account: public key of the account.
        node_id: becomes part of subjects; checked before anything is signed.
        public_key: the node's own key (``U…``).
        ttl_seconds: life of the token.
        now: seconds since the epoch.

    Raises:
        ValueError: ``node_id`` is no node id or ``public_key`` no user key.
    """
    ids.check_node_id(node_id)
    if not public_key.startswith("U") or len(public_key) != 56:
        raise ValueError("not the public key of a NATS user")
    permissions = {
        "pub": {"allow": [subjects.heartbeat(node_id)]},
        "sub": {"allow": [subjects.commands(node_id), f"_INBOX.{node_id}.>"]},
        "resp": _replies(),
    }
    limits = {"subs": _NODE_SUBSCRIPTIONS, "payload": _NODE_PAYLOAD_BYTES}
    claims = _user(permissions, account, **limits)
    return jwt.issue(
        issuer_seed, subject=public_key, name=node_id, claims=claims, iat=int(now), exp=int(now + ttl_seconds)
    )


@dataclass(frozen=True)
class Identity:
    """A created identity: the files that the server and its clients need, all 0600 under ``directory``."""

    directory: Path

    @property
    def issuer_seed_file(self) -> Path:
        """For ``nats.issuer_seed_file``."""
        return self.directory / "issuer.seed"

    @property
    def account_file(self) -> Path:
        """For ``nats.account_file``: the account's public key."""
        return self.directory / "account.pub"

    def creds_file(self, role: Role) -> Path:
        """For ``nats.creds_file`` of the service in ``role``."""
        return self.directory / f"{role}.creds"

    def server_config(self, *, legacy_no_auth: bool = False) -> dict[str, Any]:
        """The server's part: whom it trusts, and the accounts that it knows from the start."""
        account, system = (read_secret(self.directory / f"{name}.jwt") for name in ("account", "system"))
        system_key = jwt.claims_of(system)["sub"]
        config: dict[str, Any] = {
            "operator": read_secret(self.directory / "operator.jwt"),
            "system_account": system_key,
            "resolver": "MEMORY",
            "resolver_preload": {jwt.claims_of(account)["sub"]: account, system_key: system},
        }
        if legacy_no_auth:
            config["default_sentinel"] = read_secret(self.directory / "legacy.jwt")
        return config


def create(directory: Path, *, now: float | None = None) -> Identity:
    """The identity in ``directory``; made there if there is none yet.

    Raises:
        ConfigError: the directory cannot be written (STATE_NOT_WRITABLE).
    """
    identity = Identity(directory)
    # Written last: an identity whose making was interrupted is made anew.
    if not identity.account_file.exists():
        _make(identity, int(time.time() if now is None else now))
    return identity


def _make(identity: Identity, now: int) -> None:
    operator_seed, operator = jwt.new_keys(jwt.OPERATOR)
    account_seed, account = jwt.new_keys(jwt.ACCOUNT)
    issuer_seed, issuer = jwt.new_keys(jwt.ACCOUNT)
    _, system = jwt.new_keys(jwt.ACCOUNT)

    def account_token(key: str, name: str, *, jetstream: bool, signing_keys: list[str]) -> str:
        claims = {"limits": _account_limits(jetstream=jetstream), "signing_keys": signing_keys, "type": "account"}
        return jwt.issue(operator_seed, subject=key, name=name, claims=claims, iat=now)

    def user(name: str, permissions: dict[str, Any], **limits: Any) -> tuple[str, str]:
        seed, key = new_user_keys()
        return jwt.issue(
            account_seed, subject=key, name=name, claims=_user(permissions, account, **limits), iat=now
        ), seed

    operator_claims = {"system_account": system, "type": "operator"}
    files = {
        "operator.seed": operator_seed,
        "operator.jwt": jwt.issue(operator_seed, subject=operator, name="secbeat", claims=operator_claims, iat=now),
        "account.seed": account_seed,
        "account.jwt": account_token(account, "secbeat", jetstream=True, signing_keys=[issuer]),
        "system.jwt": account_token(system, "SYS", jetstream=False, signing_keys=[]),
        "issuer.seed": issuer_seed,
        "legacy.jwt": user("legacy", _legacy_permissions(), bearer_token=True)[0],
    }
    roles: tuple[Role, ...] = ("orchestrator", "provisioner", "admin")
    for role in roles:
        files[f"{role}.creds"] = jwt.creds(*user(role, _role_permissions(role)))
    files["account.pub"] = account
    for name, text in files.items():
        write_secret(identity.directory / name, text)


def _legacy_permissions() -> dict[str, Any]:
    """The original's nodes: they send events and telemetry, and hear commands."""
    return {
        "pub": {"allow": [subjects.LEGACY_WAF_EVENTS, subjects.LEGACY_TELEMETRY]},
        "sub": {"allow": [subjects.LEGACY_CONTROL, subjects.LEGACY_BLOCK]},
    }


def _account_limits(*, jetstream: bool) -> dict[str, int | bool]:
    storage = -1 if jetstream else 0
    unlimited = dict.fromkeys(("subs", "data", "payload", "imports", "exports", "conn", "streams", "consumer"), -1)
    return {**unlimited, "leaf": 0, "wildcards": True, "mem_storage": storage, "disk_storage": storage}
