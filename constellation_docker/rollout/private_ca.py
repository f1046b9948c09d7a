"""The project's own certificate authority: one for each environment, in a folder that only its owner can read.

Its key never leaves the folder. The certificate that it issues goes to the balancer, and is renewed after two thirds of
its life. The authority's own certificate is renewed with the same key and name, so a client that trusts the former one
goes on trusting until that one has run out.
"""

from __future__ import annotations

import ipaddress
import os
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from filelock import FileLock

from constellation_docker.rollout.certificate_file import Certificate, InvalidCertificate, parse_certificate

AUTHORITY_DAYS = 3650
# A renewed authority must reach its clients before the former one runs out.
AUTHORITY_RENEWAL_DAYS = 365
# Clocks differ a little.
_EARLIER = timedelta(minutes=5)
_LOCK_SECONDS = 30


@dataclass(frozen=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


class PrivateAuthority:
    """One environment's certificate authority.

    Args:
        environment: The environment's name.
        folder: Where it lies: `ca.pem` (for clients), `ca.key` and `server.pem`.
    """

    def __init__(self, environment: str, folder: Path) -> None:
        self._environment = environment
        self._folder = folder

    def certificate(self, now: datetime) -> str:
        """The authority's own certificate as PEM, for clients. It is made where there is none.

        Args:
            now: The time.
        """
        with self._locked():
            return _pem(self._authority(now).certificate)

    def issue(
        self, names: Sequence[str], *, days: int, now: datetime, is_renewed: bool = False
    ) -> Certificate:
        """The certificate of the environment's balancer: the present one while it is good, else a new one.

        Args:
            names: Host names and addresses that it is for.
            days: How long a new one is good.
            now: The time.
            is_renewed: Whether to issue a new one in any case.

        Raises:
            InvalidCertificate: The authority's files are damaged.
        """
        path = self._folder / "server.pem"
        with self._locked():
            authority = self._authority(now)
            if not is_renewed and path.is_file():
                present = self._present(path, authority)
                if present and set(present.names) == set(names) and not _is_due(present.pem, now):
                    return present
            text = _issue(authority, names, days, now)
            _write(path, text)
            return parse_certificate(text, origin=str(path))

    def _present(self, path: Path, authority: _Authority) -> Certificate | None:
        text = path.read_text(encoding="utf-8")
        try:
            found = parse_certificate(text, origin=str(path))
            x509.load_pem_x509_certificate(text.encode()).verify_directly_issued_by(authority.certificate)
        except (InvalidCertificate, InvalidSignature, ValueError, TypeError):
            return None  # it is damaged, or another authority's: a new one takes its place
        return found

    def _authority(self, now: datetime) -> _Authority:
        certificate_path, key_path = self._folder / "ca.pem", self._folder / "ca.key"
        if not key_path.exists():
            key = ec.generate_private_key(ec.SECP256R1())
            _write(key_path, _key_pem(key))
        try:
            loaded = load_pem_private_key(key_path.read_bytes(), None)
            found = (
                x509.load_pem_x509_certificate(certificate_path.read_bytes())
                if certificate_path.exists()
                else None
            )
        except (ValueError, TypeError) as error:
            raise self._damaged() from error
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise self._damaged()
        is_own = found is not None and found.public_key() == loaded.public_key()
        renewal = timedelta(days=AUTHORITY_RENEWAL_DAYS)
        if found is None or not is_own or found.not_valid_after_utc - now < renewal:
            found = _certify(self._environment, loaded, now)
            _write(certificate_path, _pem(found), mode=0o644)
        return _Authority(found, loaded)

    def _damaged(self) -> InvalidCertificate:
        return InvalidCertificate(
            f"The certificate authority in {self._folder} cannot be read.",
            remedy="Restore ca.key and ca.pem, or remove both: a new authority is made, which clients must be given.",
            environment=self._environment,
        )

    def _locked(self) -> FileLock:
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return FileLock(self._folder / ".lock", timeout=_LOCK_SECONDS)


def _certify(environment: str, key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"constellation {environment}"[:64])])
    public = key.public_key()
    usage = {"key_cert_sign": True, "crl_sign": True}
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(**usage), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .sign(key, hashes.SHA256())
    )


def _issue(authority: _Authority, names: Sequence[str], days: int, now: datetime) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    ends = min(now + timedelta(days=days), authority.certificate.not_valid_after_utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
        )
        .sign(authority.key, hashes.SHA256())
    )
    return _pem(certificate) + _key_pem(key)


def _is_due(pem: str, now: datetime) -> bool:
    leaf = x509.load_pem_x509_certificate(pem.encode())
    life = leaf.not_valid_after_utc - leaf.not_valid_before_utc
    return leaf.not_valid_after_utc - now < life / 3


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _key_usage(
    *, digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _write(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Write a file in one move; from its first moment nobody else can read it."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    temporary.replace(path)
