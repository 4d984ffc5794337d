"""HAProxy's files in its directory: the configuration, error texts, certificate, trusted proxies."""

from __future__ import annotations

import resource
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined

from node.dataplane.builtin.tls import own_certificate
from secbeat.auth import write_secret
from secbeat.errors import ConfigError
from secbeat.settings import NodeSettings, TlsSettings, split_address

CONFIG, CERTIFICATE = "haproxy.cfg", "node.pem"
CIPHERS = (
    ":".join(
        f"{exchange}-{cipher}"
        for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384")
        for exchange in ("ECDHE-ECDSA", "ECDHE-RSA")
    )
    + ":ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)
_HOPS = "proxy(-.*)?|te|trailer|keep-alive"
_CLAIMS = "forwarded|x-forwarded-(for|proto|host|port)|x-real-ip"
# HAProxy's own failures as the builtin driver words them; 503 is its word for an upstream that cannot be reached.
_ERRORS = {
    400: "400 Bad Request|400 malformed request",
    403: "403 Forbidden|blocked",
    408: "408 Request Timeout|the request did not arrive in time",
    413: "413 Content Too Large|the request's body is too large",
    500: "500 Internal Server Error|500 internal error",
    502: "502 Bad Gateway|the upstream cannot be reached",
    503: "502 Bad Gateway|the upstream cannot be reached",
    504: "504 Gateway Timeout|the upstream did not answer in time",
}
_SPARE_FILES = 128


@dataclass(frozen=True, slots=True)
class Rendered:
    """The configuration's text, and the connections it allows."""

    text: str
    maxconn: int


def render(settings: NodeSettings, port: int, *, lua: bool, hard_stop_seconds: float) -> Rendered:
    """The configuration for these settings; the same settings make the same text.

    Args:
        port: the bound port, where the settings say 0.
        lua: whether this HAProxy can run Lua.
        hard_stop_seconds: after an orderly stop began, what is left is cut after so long.
    """
    host, _ = split_address(settings.listen_addr)
    backend = urlsplit(settings.backend)
    secure = backend.scheme == "https"
    server = f"{_bracketed(backend.hostname or '')}:{backend.port or (443 if secure else 80)}"
    options = "pool-purge-delay 2s init-addr libc,none"
    if secure:
        options += f" ssl verify required ca-file @system-ca sni str({backend.hostname})"
    maxconn = _maxconn(settings.max_connections)
    template = Environment(
        loader=PackageLoader("node.dataplane.haproxy", "."), undefined=StrictUndefined, keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - no HTML; every value is checked by the settings' model
    ).get_template(f"{CONFIG}.j2")  # fmt: skip
    text = template.render(
        address=f"{_bracketed(host)}:{port}",
        ciphers=CIPHERS,
        claims=f"^({_CLAIMS})$",
        error_files=sorted(_ERRORS),
        hard_stop_seconds=max(1, round(hard_stop_seconds)),
        header_timeout=settings.header_timeout_seconds,
        hop_headers=f"^({_HOPS})$",
        hop_headers_and_claims=f"^({_HOPS}|{_CLAIMS})$",
        idle_timeout=settings.idle_timeout_seconds,
        lua=lua,
        max_body_bytes=settings.max_body_bytes,
        max_connections=settings.max_connections,
        maxconn=maxconn,
        ms=lambda seconds: f"{max(1, round(seconds * 1000))}ms",
        retry=settings.haproxy_retry,
        prefix=backend.path.rstrip("/"),
        server=server,
        server_options=options,
        trusted=bool(settings.trusted_proxies),
        upstream_timeout=settings.upstream_timeout_seconds,
    )
    return Rendered(text, maxconn)


def _maxconn(max_connections: int) -> int:
    """Connections that HAProxy accepts: some above the limit, which are told 503 instead of being left waiting."""
    wanted = max_connections + max(64, max_connections // 4)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, max(16, (hard - _SPARE_FILES) // 2))


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def write_files(directory: Path, settings: NodeSettings, text: str) -> None:
    """Write all files but the certificate and the maps; each is replaced as a whole.

    Raises:
        ConfigError: STATE_NOT_WRITABLE.
    """
    try:
        (directory / "errors").mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError("STATE_NOT_WRITABLE", why=f"{directory}: {error}") from None
    for status, line in _ERRORS.items():
        first, _, body = line.partition("|")
        write_secret(
            directory / "errors" / f"{status}.http",
            f"HTTP/1.1 {first}\r\nServer: secbeat\r\nContent-Type: text/plain; charset=utf-8\r\n"
            f"Cache-Control: no-store\r\nContent-Length: {len(body) + 1}\r\n\r\n{body}\n",
        )
    write_secret(directory / "hop.lua", Path(__file__).with_name("hop.lua").read_text(encoding="utf-8"))
    write_secret(directory / "trusted.lst", "".join(f"{network}\n" for network in settings.trusted_proxies))
    write_secret(directory / CONFIG, text)


def certificate(tls: TlsSettings, state_dir: Path, names: list[str], now: datetime) -> str:
    """Certificate chain and key in one text, the operator's or the node's own.

    Raises:
        ConfigError: files that cannot be read (SECRET_UNREADABLE) or written (STATE_NOT_WRITABLE).
    """
    used = tls if tls.cert_file is not None else own_certificate(state_dir / "tls", names, now)
    if used.cert_file is None or used.key_file is None:
        raise ConfigError("CONFIG_INVALID", why="tls needs both cert_file and key_file")
    try:
        parts = [path.read_text(encoding="ascii") for path in (used.cert_file, used.key_file)]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("SECRET_UNREADABLE", why=f"{used.cert_file}, {used.key_file}: {error}") from None
    # Without empty lines: one ends the value where it is sent to the runtime socket.
    return "\n".join(line for part in parts for line in part.splitlines() if line.strip()) + "\n"
