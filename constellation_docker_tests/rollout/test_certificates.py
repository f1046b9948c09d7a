"""The project's own certificate authority, and certificates by reference."""

from __future__ import annotations

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from constellation_docker.errors import InvalidInput
from constellation_docker.rollout import InvalidCertificate, private_authority, resolve_certificate
from constellation_docker.rollout.certificate_file import parse_certificate
from constellation_docker.rollout.command_line import balancer
from constellation_docker.rollout.private_ca import AUTHORITY_DAYS, AUTHORITY_RENEWAL_DAYS
from constellation_docker.settings import EnvironmentSettings

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def private(folder: Path, **changes: object) -> EnvironmentSettings:
    tls = {"folder": folder / "tls", "names": ["models.example", "10.1.2.3"], **changes}
    return EnvironmentSettings.model_validate({"tls": tls, "public_url": "https://api.example:8443/"})


def issued(settings: EnvironmentSettings, now: datetime = NOW, **options: bool) -> x509.Certificate:
    found = resolve_certificate("dev", settings, now=now, **options)
    assert found is not None
    return x509.load_pem_x509_certificate(found.pem.encode())


def own(*names: str) -> str:
    made = trustme.CA().issue_cert(*names)
    return made.private_key_and_cert_chain_pem.bytes().decode()


def test_an_environment_without_tls_has_no_certificate() -> None:
    assert resolve_certificate("dev", EnvironmentSettings()) is None


def test_the_own_authority_issues_for_every_name_under_which_the_balancer_is_reached(tmp_path: Path) -> None:
    found = resolve_certificate("dev", private(tmp_path), now=NOW)
    assert found is not None
    assert found.names[:2] == ("api.example", "models.example")
    assert {"localhost", "balancer", "10.1.2.3", "127.0.0.1"} <= set(found.names)
    assert found.not_after == NOW + timedelta(days=30)
    authority = x509.load_pem_x509_certificate(
        private_authority("dev", private(tmp_path)).certificate(NOW).encode()
    )
    issued(private(tmp_path)).verify_directly_issued_by(authority)
    assert "BEGIN PRIVATE KEY" not in repr(found)


def test_the_keys_can_be_read_by_their_owner_only(tmp_path: Path) -> None:
    issued(private(tmp_path))
    folder = tmp_path / "tls"
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir() if path.name[0] != "."}
    assert modes == {"ca.key": 0o600, "server.pem": 0o600, "ca.pem": 0o644}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_certificate_is_renewed_after_two_thirds_of_its_life_and_not_before(tmp_path: Path) -> None:
    settings = private(tmp_path)
    first = issued(settings)
    assert issued(settings, NOW + timedelta(days=19)) == first
    second = issued(settings, NOW + timedelta(days=21))
    assert second.not_valid_after_utc == NOW + timedelta(days=51)
    assert issued(settings, NOW + timedelta(days=21), is_renewed=True) != second


def test_another_name_needs_another_certificate(tmp_path: Path) -> None:
    first = issued(private(tmp_path))
    assert issued(private(tmp_path, names=["models.example", "new.example"])) != first


def test_a_renewed_authority_keeps_its_key_so_that_clients_go_on_trusting_it(tmp_path: Path) -> None:
    settings = private(tmp_path)
    first = x509.load_pem_x509_certificate(private_authority("dev", settings).certificate(NOW).encode())
    later = NOW + timedelta(days=AUTHORITY_DAYS - AUTHORITY_RENEWAL_DAYS + 1)
    second = x509.load_pem_x509_certificate(private_authority("dev", settings).certificate(later).encode())
    assert first != second
    issued(settings, later).verify_directly_issued_by(first)


def test_a_damaged_certificate_is_issued_anew_and_a_damaged_authority_is_told(tmp_path: Path) -> None:
    settings = private(tmp_path)
    first = issued(settings)
    (tmp_path / "tls" / "server.pem").write_text("no certificate")
    assert issued(settings) != first
    (tmp_path / "tls" / "ca.key").write_text("no key")
    with pytest.raises(InvalidCertificate, match="cannot be read"):
        issued(settings)


def test_a_certificate_of_ones_own_is_put_in_order_and_keeps_its_chain() -> None:
    text = own("models.example")
    settings = EnvironmentSettings.model_validate({"tls": {"certificate": "env:ANY"}})
    found = resolve_certificate("dev", settings, resolve=lambda reference: f"\n\n{text}\n\n")
    assert found is not None
    assert found.names == ("models.example",)
    assert found.pem.startswith("-----BEGIN CERTIFICATE-----") and "\n\n" not in found.pem
    assert load_pem_private_key(found.pem.encode(), None)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "cannot be read"),
        (own("a.example").split("-----BEGIN CERTIFICATE-----", maxsplit=1)[0], "cannot be read"),
        (
            "-----BEGIN CERTIFICATE-----" + own("a.example").partition("-----BEGIN CERTIFICATE-----")[2],
            "cannot be read",
        ),
        (trustme.CA().cert_pem.bytes().decode() + own("a.example"), "do not belong together"),
    ],
)
def test_what_is_no_certificate_with_its_key_is_refused_without_showing_it(text: str, problem: str) -> None:
    with pytest.raises(InvalidCertificate, match=problem) as caught:
        parse_certificate(text, origin="env:ANY")
    assert "env:ANY" in str(caught.value)
    assert "BEGIN" not in str(caught.value) + repr(caught.value.details)


def test_a_certificate_tells_when_its_end_is_near_or_past(tmp_path: Path) -> None:
    found = resolve_certificate("dev", private(tmp_path), now=NOW)
    assert found is not None
    assert found.describe_end(NOW) == ""
    assert "runs out on 2026-03-31" in found.describe_end(NOW + timedelta(days=25))
    assert "ran out on 2026-03-31" in found.describe_end(NOW + timedelta(days=31))


def test_a_private_authority_is_only_where_it_issues() -> None:
    with pytest.raises(InvalidInput, match="shows no certificate of the project's own authority"):
        private_authority("dev", EnvironmentSettings())


def test_the_command_line_gives_what_clients_must_trust(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONSTELLATION_HOME", str(tmp_path))
    monkeypatch.setenv("CONSTELLATION_ENVIRONMENTS", '{"dev": {"tls": {}}, "plain": {}}')

    def run(*words: str) -> str:
        done = CliRunner().invoke(balancer, words)
        if done.exception:
            raise done.exception
        return done.output

    authority = run("ca", "dev")
    assert (tmp_path / "environments" / "dev" / "tls" / "ca.pem").read_text() == authority
    assert "127.0.0.1" in json.loads(run("certificate", "dev", "--json"))["names"]
    assert "good until" in run("certificate", "dev")
    with pytest.raises(InvalidInput, match="serves plain HTTP"):
        run("certificate", "plain")
