"""`make demo` and `make demo-stop` as a stranger types them, in a directory of their own."""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from constellation_docker.engine import Engine

ROOT = Path(__file__).resolve().parents[2]
MAKE_SECONDS = 1200

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2 * MAKE_SECONDS)]


class Checkout:
    """A copy of this checkout with this environment, and a name of its own for what the demo makes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = f"constellation-demo-{secrets.token_hex(4)}"
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
        for name in listed.decode().split("\0"):
            if name and (ROOT / name).is_file():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, path / name)

    def make(self, target: str) -> str:
        """What `make` prints; it must end well."""
        done = subprocess.run(
            ["make", "--no-print-directory", f"VENV={ROOT / '.venv'}", target],
            cwd=self.path,
            env={**os.environ, "PYTHONPATH": str(self.path), "CONSTELLATION_DEMO_NAME": self.name},
            capture_output=True,
            text=True,
            timeout=MAKE_SECONDS,
            check=False,
        )
        assert done.returncode == 0, f"make {target}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        return done.stdout

    def objects(self, engine: Engine) -> tuple[list[str], list[str]]:
        """The containers of the demo, and its images' names."""
        containers = engine.list_containers({"com.docker.compose.project": self.name})
        images = [tag for image in engine.list_images() for tag in image.tags if tag.startswith(self.name)]
        return sorted(container["Id"] for container in containers), sorted(images)


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Checkout]:
    made = Checkout(tmp_path / "checkout")
    yield made
    made.make("demo-stop")


def test_the_demo_answers_a_second_start_changes_nothing_and_a_stop_leaves_nothing(
    checkout: Checkout, engine: Engine
) -> None:
    said = checkout.make("demo")
    endpoint = re.findall(r"endpoint\s+(http://\S+)", said)[0]
    ui = re.findall(r"UI\s+(http://\S+)/assets", said)[0]
    answer = httpx.post(endpoint, json={"inputs": "I loved this film."}, timeout=30, trust_env=False)
    assert answer.status_code == 200
    assert json.dumps(answer.json()).count("POSITIVE") == 1
    assert httpx.get(f"{ui}/server_info", timeout=30, trust_env=False).status_code == 200
    before = checkout.objects(engine)
    assert all(before)

    again = checkout.make("demo")
    assert "Packaging" not in again and "Deploying" not in again
    assert re.findall(r"endpoint\s+(http://\S+)", again)[0] == endpoint
    assert checkout.objects(engine) == before

    checkout.make("demo-stop")
    assert checkout.objects(engine) == ([], [])
    assert not (checkout.path / ".demo").exists()
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{ui}/server_info", timeout=5, trust_env=False)
    assert "no demo" in checkout.make("demo-stop")
