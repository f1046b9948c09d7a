"""Compose's own hash, computed by us, against the stock Compose."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from constellation_docker.cards.serving_options import DeployOptions, Reservations, Resources
from constellation_docker.compose import Healthcheck, compile_environment, config_hash
from constellation_docker.settings import EnvironmentSettings
from constellation_docker.settings.rollout import TlsSettings
from constellation_docker_tests.compose.services import BALANCER_IMAGE, wanted

_SERVICES = [
    wanted("plain"),
    wanted("escapes", env={"A": "<b> & \u2028 $5 ${X} \"q\" 'q' \\ ü 😀", "B": "", "C": "1", "D": "a\nb\n"}),
    wanted("small", resources=Resources(memory="64m", cpus=0.1, pids=7)),
    wanted("gpu", resources=Resources(gpus=2, cpus=2, reservations=Reservations(memory="512m", cpus=0.25))),
    wanted("health", healthcheck=Healthcheck(test=("CMD", "/x", "$y"), interval=0.5, start_period=3661.5)),
    wanted("grace", deploy=DeployOptions(stop_grace_period="1h1ms"), replicas=0),
    wanted("local", image="sha256:" + "c" * 64),
    wanted("secret", secrets={"TOKEN": "env:TOKEN_OF_TEST"}),
]


@pytest.mark.slow
@pytest.mark.parametrize("suite", ["sid", "trixie"])
@pytest.mark.parametrize(
    "settings", [EnvironmentSettings(), EnvironmentSettings(tls=TlsSettings(), metrics_port=0)]
)
def test_our_hashes_are_what_the_stock_compose_computes(
    settings: EnvironmentSettings, suite: str, compose_binary: Callable[[str], Path], tmp_path: Path
) -> None:
    binary = compose_binary(suite)
    file = compile_environment("dev", settings, _SERVICES, balancer_image=BALANCER_IMAGE)
    path = tmp_path / "compose.yaml"
    path.write_text(file.text)
    shown = subprocess.run(
        [binary, "-f", path, "config", "--hash", "*"],
        env={**os.environ, "TOKEN_OF_TEST": "s3cret", "BALANCER_CERTIFICATE": "any"},
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = dict(line.split() for line in shown.stdout.splitlines())
    secret = file.services["secret"].service
    assert theirs == {**file.config_hashes, "secret": config_hash(secret, {"TOKEN": "s3cret"})}


@pytest.mark.slow
def test_the_stock_compose_names_the_secret_that_is_missing(compose: Path, tmp_path: Path) -> None:
    file = compile_environment("dev", EnvironmentSettings(), _SERVICES, balancer_image=BALANCER_IMAGE)
    path = tmp_path / "compose.yaml"
    path.write_text(file.text)
    done = subprocess.run([compose, "-f", path, "config", "-q"], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "TOKEN_OF_TEST" in done.stderr
