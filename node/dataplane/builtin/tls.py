"""The proxy's TLS context: the configured certificate, or one of the node's own."""

from __future__ import annotations

import ipaddress
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from secbeat.api.serving import server_context
from secbeat.auth import write_secret
from secbeat.settings import TlsSettings

_LIFE = timedelta(days=397)
_RENEW = timedelta(days=30)


def context(tls: TlsSettings, directory: Path, names: list[str]) -> ssl.SSLContext:
    """A server context for HTTP/1.1.

    Args:
        tls: the operator's certificate, if any.
        directory: where the node's own one is kept.
        names: host names and addresses that the own one is made for.

    Raises:
        ConfigError: files that cannot be read (SECRET_UNREADABLE) or written (STATE_NOT_WRITABLE).
    """
    made = server_context(tls) or server_context(own_certificate(directory, names, datetime.now(UTC)))
    assert made is not None  # noqa: S101 - own_certificate names both files
    made.set_alpn_protocols(["http/1.1"])
    return made


def own_certificate(directory: Path, names: list[str], now: datetime) -> TlsSettings:
    """The self-signed certificate in ``directory``, made anew when it is absent, unreadable or about to expire."""
    cert_file, key_file = directory / "proxy.crt", directory / "proxy.key"
    if not (key_file.is_file() and _is_current(cert_file, now)):
        key, certificate = _make(names, now)
        write_secret(key_file, key)
        write_secret(cert_file, certificate)
    return TlsSettings(cert_file=cert_file, key_file=key_file)


def _is_current(path: Path, now: datetime) -> bool:
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return False
    return certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc - _RENEW


def _make(names: list[str], now: datetime) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "secbeat node")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + _LIFE)
        .add_extension(x509.SubjectAlternativeName(_alternatives(names)), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem.decode(), certificate.public_bytes(serialization.Encoding.PEM).decode()


def _alternatives(names: list[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in dict.fromkeys([*names, "localhost", "127.0.0.1", "::1", socket.gethostname()]):
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            if name.isascii():
                found.append(x509.DNSName(name))
    return found
