"""Both kinds of configuration, as HAProxy itself reads them."""

from __future__ import annotations

import itertools
import subprocess
from pathlib import Path

import pytest
import trustme

from constellation_docker.cards.serving_options import RateLimit
from constellation_docker.compose.balancer_config import (
    CERTIFICATE_PATH,
    CONFIG_PATH,
    SOCKET_FOLDER,
    BalancerOptions,
    StandaloneRoute,
    render_standalone_config,
)
from constellation_docker.rollout import Member, Route
from constellation_docker.rollout.haproxy_config import plan_layout, render_files
from constellation_docker_tests.fixtures.debian import require_program

OPTIONS = [
    BalancerOptions(*values)
    for values in itertools.product((None, "TLSv1.2", "TLSv1.3"), (False, True), (0, 10))
]
LIMIT = RateLimit(requests=5, per="1h", by="key")


def complaints(files: dict[str, str], folder: Path) -> str:
    """What HAProxy has to say against a configuration; the names in it do not resolve here."""
    haproxy = require_program("haproxy", "haproxy")
    (folder / "tls").mkdir()
    pem = trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.bytes()
    (folder / "tls" / "server.pem").write_bytes(pem)
    own = CONFIG_PATH.rpartition("/")[0]
    for path, text in files.items():
        moved = text.replace(CERTIFICATE_PATH, str(folder / "tls" / "server.pem"))
        moved = moved.replace(own + "/", f"{folder}/").replace(SOCKET_FOLDER, str(folder))
        (folder / Path(path).name).write_text(moved)
    done = subprocess.run(
        [haproxy, "-c", "-f", folder / Path(CONFIG_PATH).name], capture_output=True, text=True, check=False
    )
    lines = (done.stdout + done.stderr).splitlines()
    known = ("could not resolve address", "Configuration file is valid", "Warnings were found", "[NOTICE]")
    return "\n".join(line for line in lines if line and not any(word in line for word in known))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_haproxy_accepts_the_configuration_of_a_rollout(options: BalancerOptions, tmp_path: Path) -> None:
    member = Member("1.tiny", 8080, "/ready", "ready", "up", version="1.0+cpu")
    routes = [Route("tiny", 60, 1000, (member,), LIMIT), Route("other", 60)]
    assert complaints(render_files(plan_layout(routes), options), tmp_path) == ""


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_haproxy_accepts_the_configuration_in_the_compose_file(
    options: BalancerOptions, tmp_path: Path
) -> None:
    routes = [
        StandaloneRoute("tiny", 8080, "/ready", 2, 60, 1000, LIMIT),
        StandaloneRoute("other", 8080, "/ready", 0, 60, None),
    ]
    assert complaints({CONFIG_PATH: render_standalone_config(routes, options)}, tmp_path) == ""
