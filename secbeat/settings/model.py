"""Every configuration key: its type, unit, default, range, and whether a change is live or wants a restart.

The reference page of the docs is generated from here. Durations are seconds unless the name says otherwise;
fractions run from 0 to 1; addresses are ``host:port``.
"""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationError, model_validator

from secbeat import ids
from secbeat.settings.fields import (
    DEFAULT_MANAGEMENT_TOKEN,
    Address,
    Fraction,
    Label,
    Network,
    Seconds,
    Secret,
    Table,
    is_placeholder,
    live,
    restart,
    split_address,
)
from secbeat.settings.notifications import NotificationKind, NotificationsSettings

__all__ = [
    "DEFAULT_MANAGEMENT_TOKEN",
    "BlueprintSettings",
    "ManagementSettings",
    "NatsSettings",
    "NodeSettings",
    "NotificationKind",
    "NotificationsSettings",
    "OrchestratorSettings",
    "PolicySettings",
    "PoolSettings",
    "ProvisionerSettings",
    "Settings",
    "Table",
    "TelemetrySettings",
    "TlsSettings",
    "is_placeholder",
    "split_address",
]


class PolicySettings(Table):
    """When a pool grows and shrinks. The defaults are the guide's; those that it lacks name the peer they come from."""

    scale_up_cpu_threshold: Fraction = live(0.80, description="Mean CPU above which a check counts toward scale-up.")
    scale_down_cpu_threshold: Fraction = live(
        0.30, description="Mean CPU below which a check counts toward scale-down."
    )
    scale_up_checks: int = live(2, ge=1, le=1000, description="Consecutive checks before a scale-up.")
    scale_down_checks: int = live(5, ge=1, le=1000, description="Consecutive checks before a scale-down.")
    scaling_check_interval_seconds: float = live(60.0, ge=0.1, le=86400, description="Seconds between two checks.")
    scale_up_cooldown_seconds: Seconds = live(
        0.0, description="Seconds after a scale-up in which no further one starts. Booting capacity counts anyway."
    )
    scale_down_cooldown_seconds: Seconds = live(
        300.0, description="Seconds after any scaling in which no scale-down starts (AWS, HPA: 300)."
    )
    warmup_seconds: Seconds = live(
        30.0, description="Seconds after its join in which a node's load does not count (HPA readiness delay: 30)."
    )
    max_step_up: int = live(1, ge=1, le=1000, description="At most so many nodes per scale-up decision.")
    boot_deadline_seconds: float = live(
        900.0, ge=1, le=86400, description="Seconds from the request to the join before an operation fails "
        "(Cluster Autoscaler, Karpenter: 15 min)."
    )  # fmt: skip
    drain_deadline_seconds: float = live(
        60.0, ge=0, le=86400, description="Grace period that a node gets to finish its requests (the guide: 60)."
    )
    min_fresh_fraction: Fraction = live(
        0.5, description="Share of the active nodes that must have fresh metrics, else the pool holds."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.scale_down_cpu_threshold >= self.scale_up_cpu_threshold:
            raise ValueError(
                f"scale_down_cpu_threshold ({self.scale_down_cpu_threshold}) must be below "
                f"scale_up_cpu_threshold ({self.scale_up_cpu_threshold})"
            )
        return self


class PoolSettings(PolicySettings):
    """``[pools.NAME]``: one pool's size, policy and blueprint."""

    min: int = live(1, ge=0, le=100_000, description="Fewest nodes; a fleet below it is restored at once.")
    max: int = live(10, ge=0, le=100_000, description="Most nodes, booting ones included.")
    blueprint: Label = live("default", description="Name of the provisioner's blueprint that makes this pool's nodes.")
    mode: Literal["active", "observe"] = live("active", description="'observe' decides and records, but cannot act.")
    legacy_cpu_unit: Literal["auto", "percent", "fraction"] = live(
        "auto", description="Unit of CPU in the original's HTTP heartbeat; 'auto' is percent, as the original sends it."
    )

    @model_validator(mode="after")
    def _min_max(self) -> Self:
        if self.min > self.max:
            unset = "" if "max" in self.model_fields_set else ", its default: set it too"
            raise ValueError(f"min ({self.min}) is over max ({self.max}{unset})")
        return self


class TlsSettings(Table):
    """Certificate and key of a listener; both or neither."""

    cert_file: Path | None = restart(None, description="PEM certificate chain.")
    key_file: Path | None = restart(None, description="PEM private key.")

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together: set both or neither")
        return self


class OrchestratorSettings(PolicySettings):
    """``[orchestrator]``. The guide's flat keys stand here, or at the file's top level.

    Policy keys that are set here are the defaults of every pool; ``min_fleet_size`` and ``max_fleet_size`` are min and
    max of pool ``default``.
    """

    listen_addr: Address = restart("127.0.0.1:3030", description="HTTP API.")
    metrics_addr: Address = restart("127.0.0.1:9091", description="Prometheus metrics, GET /metrics.")
    allow_plaintext: bool = restart(False, description="Allow a non-loopback bind without TLS. Know what you do.")
    allowed_hosts: list[str] = restart(
        [], description="Further values of the Host header to accept (the listen address and localhost always are)."
    )
    provisioning_webhook_url: str = live(
        "http://localhost:8000/provision", description="Receiver of scale-up requests."
    )
    deprovisioning_webhook_url: str | None = live(
        None,
        description="Receiver of teardown requests. Unset: the receiver cannot destroy, machines are named to you.",
    )
    webhook_secret_file: Path | None = restart(None, description="File with the whsec_… secret that signs webhooks.")
    webhook_bearer_token_file: Path | None = restart(
        None,
        description="File with a bearer token sent as Authorization with each webhook (Ansible Tower and the like).",
    )
    webhook_timeout_seconds: float = live(15.0, gt=0, le=300, description="One attempt's time limit.")
    min_fleet_size: int = live(
        1, ge=0, le=100_000, description="min of pool 'default', unless [pools.default] sets its own."
    )
    max_fleet_size: int = live(
        10, ge=0, le=100_000, description="max of pool 'default', unless [pools.default] sets its own."
    )
    max_open_operations: int = live(50, ge=1, le=10_000, description="Open operations in all pools together.")
    max_open_operations_per_pool: int = live(10, ge=1, le=10_000, description="Open operations of one pool.")
    breaker_failures: int = live(3, ge=1, le=100, description="Boots in a row that never joined before a pool stops.")
    breaker_reset_seconds: Seconds = live(600.0, description="Seconds until a stopped pool tries one boot again.")
    boot_retry_seconds: Seconds = live(
        5.0, description="Seconds before a boot that failed is made good; doubled with each further failure in a row."
    )
    heartbeat_interval_seconds: float = live(5.0, ge=0.2, le=3600, description="Interval told to nodes at their join.")
    legacy_nodes: list[Network] = restart(
        [ip_network("127.0.0.0/8"), ip_network("::1/128")],
        description="Where original nodes (no join secret) may register from.",
    )
    node_networks: list[Network] = restart(
        [ip_network("127.0.0.0/8"), ip_network("::1/128"), ip_network("10.0.0.0/8"), ip_network("172.16.0.0/12"),
         ip_network("192.168.0.0/16"), ip_network("fc00::/7")],
        description="Addresses that the orchestrator may dial to manage a node.",
    )  # fmt: skip
    never_block: list[Network] = restart(
        [],
        description="Networks that the blocklist refuses: load balancers, monitoring, offices. Our own nodes, listen "
        "address and node.trusted_proxies are refused anyway.",
    )
    tokens_file: Path | None = restart(None, description="Hashed API tokens (default: STATE/secrets/tokens.json).")
    state_dir: Path | None = restart(None, description="Directory for secrets; default $XDG_STATE_HOME/secbeat.")
    log_file: Path | None = restart(Path("logs/orchestrator.log"), description="Log file beside standard error.")
    join_secret_ttl_seconds: float = live(900.0, ge=10, le=86400, description="Life of a join secret (15 min).")
    node_credentials_ttl_seconds: float = live(
        3600.0, ge=60, le=86400 * 30, description="Life of a node's NATS credentials; renewed at half of it."
    )
    ledger_max_age_days: float = restart(30.0, gt=0, le=3650, description="How long decisions are kept.")
    tls: TlsSettings = Field(default_factory=TlsSettings)

    @model_validator(mode="after")
    def _fleet_size(self) -> Self:
        if self.min_fleet_size > self.max_fleet_size:
            unset = "" if "max_fleet_size" in self.model_fields_set else ", its default: set it too"
            raise ValueError(
                f"min_fleet_size ({self.min_fleet_size}) is over max_fleet_size ({self.max_fleet_size}{unset})"
            )
        return self


class BlueprintSettings(Table):
    """``[blueprints.NAME]``: how the provisioner makes a node, and the limits that hold whoever asks."""

    engine: Literal["ansible", "terraform"] = restart("ansible", description="What runs.")
    target: Label = restart("local", description="Where machines stand: 'local' starts processes on this machine.")
    create_playbook: Label = restart("scale_up", description="Name of the playbook that makes a node.")
    destroy_playbook: Label = restart("scale_down", description="Name of the playbook that removes a node.")
    inventory: Label = restart("local", description="Name of the inventory.")
    variables: dict[str, Any] = restart(
        {}, description="Your own variables for the playbook (trusted, never from the wire)."
    )
    max_machines: int = live(
        10, ge=0, le=100_000, description="Most machines of one pool, enforced by the provisioner."
    )
    create_timeout_seconds: float = live(600.0, gt=0, le=86400, description="Time limit of one create job.")
    destroy_timeout_seconds: float = live(600.0, gt=0, le=86400, description="Time limit of one destroy job.")
    max_parallel_jobs: int = live(10, ge=1, le=1000, description="Jobs of this blueprint at one time.")


class ProvisionerSettings(Table):
    """``[provisioner]``."""

    listen_addr: Address = restart("127.0.0.1:8000", description="Webhook and API.")
    allow_plaintext: bool = restart(False, description="Allow a non-loopback bind without TLS. Know what you do.")
    allowed_hosts: list[str] = restart([], description="Further values of the Host header to accept.")
    orchestrator_url: str = restart(
        "http://127.0.0.1:3030", description="Where join secrets are fetched and nodes join."
    )
    webhook_secret_file: Path | None = restart(
        None, description="File with the whsec_… secret that webhooks must be signed with."
    )
    previous_webhook_secret_file: Path | None = restart(
        None, description="The secret before a rotation, still accepted."
    )
    service_token_file: Path | None = restart(None, description="File with the orchestrator's service token.")
    tokens_file: Path | None = restart(None, description="Hashed API tokens (default: STATE/secrets/tokens.json).")
    unsigned_senders: list[Network] = restart(
        [ip_network("127.0.0.0/8"), ip_network("::1/128")],
        description="Where unsigned webhooks (the original's) are accepted from.",
    )
    unsigned_pool: Annotated[str, AfterValidator(ids.check_pool)] = restart(
        "default", description="Pool of unsigned requests."
    )
    timestamp_tolerance_seconds: float = live(300.0, ge=1, le=3600, description="Accepted skew of a signed webhook.")
    result_retention_days: float = restart(30.0, ge=1, le=3650, description="How long finished jobs are remembered.")
    max_machines: int = live(50, ge=0, le=1_000_000, description="Most machines in all pools together.")
    max_creations_per_minute: float = live(60.0, gt=0, le=100_000, description="Creation rate, token bucket.")
    max_concurrent_jobs: int = live(10, ge=1, le=1000, description="Jobs at one time.")
    max_queued_jobs: int = live(1000, ge=1, le=100_000, description="Jobs waiting before 503 is answered.")
    breaker_failures: int = live(3, ge=1, le=100, description="Failed creations in a row that open the breaker.")
    breaker_reset_seconds: Seconds = live(600.0, description="Seconds until an open breaker lets one creation try.")
    state_dir: Path | None = restart(
        None, description="Job logs, machines of local pools; default $XDG_STATE_HOME/secbeat."
    )
    project_dir: Path | None = restart(
        None, description="Your Ansible project (playbooks/, inventories/); default: ours."
    )
    log_file: Path | None = restart(Path("logs/provisioner.log"), description="Log file beside standard error.")
    tls: TlsSettings = Field(default_factory=TlsSettings)


class NodeSettings(Table):
    """``[node]``."""

    server_url: str = restart("http://127.0.0.1:3030", description="The orchestrator.")
    join_file: Path | None = restart(None, description="Join secret; absent: register in the original's form.")
    pool: Annotated[str, AfterValidator(ids.check_pool)] = restart(
        "default", description="Pool, when there is no join file."
    )
    state_dir: Path | None = restart(
        None, description="Keys, certificate, credentials; default: a directory of its own."
    )
    listen_addr: Address = restart("0.0.0.0:8443", description="The TLS proxy.")
    metrics_addr: Address = restart("127.0.0.1:9090", description="Prometheus metrics.")
    public_ip: str = restart("127.0.0.1", description="Address told at an original-form registration.")
    backend: str = restart("http://127.0.0.1:8080", description="Upstream that requests are forwarded to.")
    driver: Literal["builtin", "haproxy"] = restart(
        "builtin", description="Data plane: the proxy of the node itself, or HAProxy (2.6 or later) driven by it."
    )
    haproxy: str = restart("haproxy", description="Program of the driver haproxy: a path, or a name on the PATH.")
    haproxy_retry: bool = live(
        True,
        description="Driver haproxy: an idempotent request whose upstream connection turns out dead is sent again. It "
        "copies each request, about a tenth of the proxy's CPU; off, the client's connection is closed instead.",
    )
    cpu_allowance: float | None = restart(
        None, gt=0, le=1024, description="Cores that count as full load of this process tree; unset: the machine's CPU."
    )
    register_jitter_seconds: float = restart(5.0, ge=0, le=300, description="Random wait before a (re-)join.")
    propagation_seconds: float = live(10.0, ge=0, le=3600, description="Drain: time for load balancers to notice.")
    max_body_bytes: int = live(1 << 30, ge=0, description="Largest request body.")
    header_timeout_seconds: float = live(15.0, gt=0, le=3600, description="Time for a client to send its headers.")
    idle_timeout_seconds: float = live(
        75.0, gt=0, le=86400, description="Keep-alive connections idle so long are closed."
    )
    upstream_timeout_seconds: float = live(
        60.0, gt=0, le=86400, description="Time for the upstream's response to begin."
    )
    max_connections: int = live(10_000, ge=1, le=1_000_000, description="Client connections at one time.")
    trusted_proxies: list[Network] = live([], description="Peers whose X-Forwarded-For is believed.")
    log_file: Path | None = restart(None, description="Log file beside standard error.")
    tls: TlsSettings = Field(default_factory=TlsSettings)


class ManagementSettings(Table):
    """``[management]``: the guide's. On a node its listener; at the orchestrator the token of nodes without a join."""

    enabled: bool = restart(True, description="Off: the NATS commands are the only way in.")
    listen_addr: Address = restart("127.0.0.1:9999", description="The management API.")
    auth_token: Secret | None = restart(None, description="Token of nodes that join without a secret.")
    auth_token_file: Path | None = restart(None, description="The same, from a file of mode 0600.")
    allow_default_token: bool = restart(False, description="Accept the guide's published token. Anyone knows it.")
    allow_legacy_terminate: bool = restart(
        False, description="Accept the original's three-field body from beyond loopback."
    )
    allow_plaintext: bool = restart(False, description="Allow a non-loopback bind without TLS.")
    shutdown_grace_period: float = live(60.0, ge=0, le=86400, description="Longest drain, seconds.")

    @model_validator(mode="after")
    def _token(self) -> Self:
        if self.auth_token is None:
            return self
        if self.auth_token_file is not None:
            raise ValueError("auth_token and auth_token_file are both set: keep one")
        if self.auth_token.get_secret_value() == DEFAULT_MANAGEMENT_TOKEN and not self.allow_default_token:
            raise ValueError(
                "auth_token is the guide's published token, a placeholder that everybody knows: set your own, "
                "or knowingly set allow_default_token = true"
            )
        return self


class NatsSettings(Table):
    """``[nats]``."""

    url: str = restart("nats://127.0.0.1:4222", description="Server, or several separated by commas.")
    creds_file: Path | None = restart(None, description="Credentials (user JWT and seed), as nsc writes them.")
    issuer_seed_file: Path | None = restart(
        None, description="Account signing seed; with it the orchestrator gives each node a NATS user of its own."
    )
    account_file: Path | None = restart(None, description="Public key of the account that issuer_seed_file signs for.")
    node_url: str | None = restart(
        None, description="Address told to nodes, when they reach NATS elsewhere than we do."
    )
    legacy_no_auth: bool = restart(False, description="Open the original's subjects to clients without a login.")
    replicas: Literal[1, 3, 5] = restart(1, description="JetStream replicas.")
    connect_timeout_seconds: float = restart(5.0, gt=0, le=300, description="Wait for the first connection.")


class TelemetrySettings(Table):
    """``[telemetry]``. Traces by OpenTelemetry, with the extra ``telemetry``; OTEL_* variables stand too."""

    otlp_endpoint: str | None = restart(
        None,
        pattern=r"^https?://[^\s/@]+(/[^\s@]*)?$",
        description="Collector that takes OTLP over HTTP, e.g. http://127.0.0.1:4318; /v1/traces is added. "
        "Unset: OTEL_EXPORTER_OTLP_ENDPOINT, and without that no traces.",
    )


class Settings(Table):
    """The whole file."""

    orchestrator: OrchestratorSettings = Field(default_factory=OrchestratorSettings)
    pools: dict[Annotated[str, AfterValidator(ids.check_pool)], PoolSettings] = Field(default_factory=dict)
    provisioner: ProvisionerSettings = Field(default_factory=ProvisionerSettings)
    blueprints: dict[Label, BlueprintSettings] = Field(default_factory=dict)
    node: NodeSettings = Field(default_factory=NodeSettings)
    management: ManagementSettings = Field(default_factory=ManagementSettings)
    nats: NatsSettings = Field(default_factory=NatsSettings)
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings)
    notifications: NotificationsSettings = Field(default_factory=NotificationsSettings)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        flat = self.orchestrator
        sizes = {"min": "min_fleet_size", "max": "max_fleet_size"}
        if self.pools and "default" not in self.pools:
            for key in flat.model_fields_set & set(sizes.values()):
                raise ValueError(f"{key} is the size of pool 'default', which [pools] does not have: set it there")
        shared = {key: getattr(flat, key) for key in PolicySettings.model_fields if key in flat.model_fields_set}
        for name in self.pools or ("default",):
            inherited = dict(shared)
            if name == "default":
                inherited |= {own: getattr(flat, key) for own, key in sizes.items() if key in flat.model_fields_set}
            self.pools[name] = _with_defaults(name, self.pools.get(name), inherited)
        if not self.blueprints:
            self.blueprints = {"default": BlueprintSettings()}
        return self


def _with_defaults(name: str, pool: PoolSettings | None, inherited: dict[str, Any]) -> PoolSettings:
    own = {} if pool is None else pool.model_dump(exclude_unset=True)
    try:
        return PoolSettings.model_validate({**inherited, **own})
    except ValidationError as error:
        message = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise ValueError(f"pools.{name}, with what [orchestrator] sets for all pools: {message}") from None
