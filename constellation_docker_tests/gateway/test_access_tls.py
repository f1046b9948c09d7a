"""TLS as the gateway serves it: certificates are exchanged under traffic, and bad ones stop the start."""

from __future__ import annotations

import socket
import ssl
import threading
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import trustme

from constellation_docker.errors import InvalidInput
from constellation_docker.gateway.tls import Certificates
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.gateway.access_parts import bearer
from constellation_docker_tests.gateway.serving import served


@dataclass
class Pair:
    """A certificate and its key, in the two files that a gateway is told."""

    certificate: Path
    key: Path

    def write(self, authority: trustme.CA, *, with_key: bool = True) -> int:
        """Let the files hold a new certificate for loopback; returns its serial number."""
        made = authority.issue_cert("localhost", "127.0.0.1")
        replace(self.certificate, b"".join(pem.bytes() for pem in made.cert_chain_pems))
        if with_key:
            replace(self.key, made.private_key_pem.bytes())
        return serial_of(ssl.PEM_cert_to_DER_cert(made.cert_chain_pems[0].bytes().decode()))


def replace(path: Path, content: bytes) -> None:
    """Write a file as those who renew certificates do: whole, at once."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.rename(path)


def serial_of(certificate: bytes) -> int:
    from cryptography.x509 import load_der_x509_certificate

    return load_der_x509_certificate(certificate).serial_number


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def pair(tmp_path: Path, authority: trustme.CA) -> Pair:
    made = Pair(tmp_path / "tls.crt", tmp_path / "tls.key")
    made.write(authority)
    return made


@pytest.fixture
def trust(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def shown_serial(url: str, trust: ssl.SSLContext, *, name: str | None = "localhost") -> int:
    port = int(url.rsplit(":", 1)[1])
    context = trust
    if name is None:  # a client that names no server checks the address
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
        context.wrap_socket(plain, server_hostname=name) as connection,
    ):
        return serial_of(connection.getpeercert(binary_form=True) or b"")


def test_a_certificate_is_exchanged_under_traffic_without_a_failed_call(
    tmp_path: Path, pair: Pair, authority: trustme.CA, trust: ssl.SSLContext
) -> None:
    settings = {"tls_certificate": pair.certificate, "tls_key": pair.key, "tls_reload_seconds": 0.1}
    with served(tmp_path / "home", **settings) as (url, _):
        is_over = threading.Event()
        statuses: list[int] = []
        failures: list[Exception] = []

        def call_anew_each_time() -> None:
            while not is_over.is_set():
                try:
                    statuses.append(httpx.get(f"{url}/health", verify=trust, timeout=30).status_code)
                except httpx.HTTPError as error:
                    failures.append(error)

        callers = [threading.Thread(target=call_anew_each_time) for _ in range(3)]
        with httpx.Client(base_url=url, verify=trust, timeout=30) as standing:
            assert standing.get("/health").headers["Strict-Transport-Security"]
            for caller in callers:
                caller.start()
            for _ in range(5):
                serial = pair.write(authority)
                wait_for(lambda: shown_serial(url, trust) == serial, what="the new certificate")  # noqa: B023
                assert shown_serial(url, trust, name=None) == serial
            before = len(statuses)
            wait_for(lambda: len(statuses) > before + 3, what="calls with the last certificate")
            # The connection that stood all the while still does.
            assert standing.get("/health").status_code == 200
            is_over.set()
            for caller in callers:
                caller.join()
        assert failures == []
        assert set(statuses) == {200}


def test_a_pair_that_is_half_written_leaves_the_old_one_in_use(
    pair: Pair, authority: trustme.CA, trust: ssl.SSLContext
) -> None:
    certificates = Certificates(pair.certificate, pair.key)
    assert not certificates.reload_if_changed()
    pair.write(authority, with_key=False)
    assert not certificates.reload_if_changed()
    replace(pair.certificate, b"no certificate")
    assert not certificates.reload_if_changed()
    pair.certificate.unlink()
    assert not certificates.reload_if_changed()
    pair.write(authority)
    assert certificates.reload_if_changed()
    assert not certificates.reload_if_changed()


def test_tls_older_than_1_2_is_not_spoken(tmp_path: Path, pair: Pair, trust: ssl.SSLContext) -> None:
    with served(tmp_path / "home", tls_certificate=pair.certificate, tls_key=pair.key) as (url, key):
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
        port = int(url.rsplit(":", 1)[1])
        with socket.create_connection(("127.0.0.1", port)) as plain, pytest.raises((ssl.SSLError, OSError)):
            old.wrap_socket(plain)
        assert httpx.get(f"{url}/docs", headers=bearer(key), verify=trust).status_code == 200


def test_a_certificate_that_cannot_be_used_stops_the_start(tmp_path: Path, pair: Pair) -> None:
    with pytest.raises(InvalidInput, match=r"nowhere\.pem.* cannot be used: No such file"):
        Certificates(tmp_path / "nowhere.pem", pair.key)
    other = trustme.CA().issue_cert("localhost").private_key_pem.bytes()
    replace(pair.key, other)
    with pytest.raises(InvalidInput, match="cannot be used"):
        Certificates(pair.certificate, pair.key)
