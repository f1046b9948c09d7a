"""A certificate with its chain and its key, as one PEM."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from constellation_docker.errors import ConstellationError

# HAProxy takes a new certificate through one buffer (tune.bufsize, 16384) in which the command stands too.
LARGEST_BYTES = 15_000


# An issued certificate is renewed long before; one of the environment's own is somebody else's to renew.
NEAR_END = timedelta(days=7)


class InvalidCertificate(ConstellationError):
    """A balancer's certificate cannot be used. The message names where it comes from, never what is in it."""

    code = "invalid_certificate"


@dataclass(frozen=True)
class Certificate:
    """A certificate that a balancer shows.

    Attributes:
        pem: Certificate, chain and key, in this order, without anything else.
        names: The host names and addresses that it is for.
        not_after: Until when it is good.
    """

    pem: str = field(repr=False)
    names: tuple[str, ...]
    not_after: datetime

    def describe_end(self, now: datetime) -> str:
        """A sentence about its end, where that is past or near; else nothing.

        Args:
            now: The time.
        """
        if self.not_after <= now:
            return f"The balancer's certificate ran out on {self.not_after:%Y-%m-%d}; clients refuse it. Renew it."
        if self.not_after - now < NEAR_END:
            return f"The balancer's certificate runs out on {self.not_after:%Y-%m-%d}. Renew it; the new one is taken up by itself."
        return ""


def parse_certificate(text: str, *, origin: str) -> Certificate:
    """Check a certificate with its chain and key, and put it into the form in which HAProxy reads it.

    Args:
        text: The PEM; the order of its parts does not matter as long as the certificate stands before its chain.
        origin: Where it comes from, for messages.

    Raises:
        InvalidCertificate: A part is missing or unreadable, certificate and key do not belong together, or it is too
            large. One that has run out is no error: nothing would be better without it.
    """
    try:
        chain = x509.load_pem_x509_certificates(text.encode())
        key = load_pem_private_key(text.encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidCertificate(
            f"The certificate from {origin} cannot be read: it must hold a certificate and its key without a password.",
            remedy="Give one PEM with the certificate, its chain and its key.",
            origin=origin,
        ) from error
    leaf = chain[0]
    spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if key.public_key().public_bytes(*spki) != leaf.public_key().public_bytes(*spki):
        raise InvalidCertificate(
            f"The first certificate from {origin} and the key do not belong together.",
            remedy="Put the server's own certificate first, its chain after it, and give its own key.",
            origin=origin,
        )
    parts = [certificate.public_bytes(Encoding.PEM) for certificate in chain]
    parts.append(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    pem = b"".join(parts).decode()
    if len(pem) > LARGEST_BYTES:
        raise InvalidCertificate(
            f"The certificate from {origin} has {len(pem)} bytes with its chain; HAProxy can replace {LARGEST_BYTES} while it runs.",
            remedy="Leave the root certificate out of the chain, or take an elliptic-curve key.",
            origin=origin,
        )
    return Certificate(pem, _names(leaf), leaf.not_valid_after_utc)


def leaf_fingerprint(pem: str) -> str:
    """The SHA-1 fingerprint of the first certificate, as HAProxy's `show ssl cert` prints it."""
    leaf = x509.load_pem_x509_certificates(pem.encode())[0]
    return leaf.fingerprint(hashes.SHA1()).hex().upper()  # noqa: S303  it is what HAProxy shows, not a protection


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = (str(address) for address in found.get_values_for_type(x509.IPAddress))
    return (*found.get_values_for_type(x509.DNSName), *addresses)
