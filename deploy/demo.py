"""`make demo` and `make demo-stop`: the main job with embedded defaults, from nothing to an answer.

Everything that it makes lies in `.demo/`, in Docker objects of the Compose project `constellation-demo` and in
images of that prefix, so that stopping removes just that. CONSTELLATION_DEMO_NAME names both otherwise, where two
demos share an engine.
"""

from __future__ import annotations

import fcntl
import json
import os
import shlex
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
from huggingface_hub import InferenceClient
from rich.console import Console

from constellation_docker.cards import CardStore, DeploymentNotFound, ModelCard, ModelRow
from constellation_docker.compose import project_name
from constellation_docker.engine import Conflict, Engine
from constellation_docker.errors import ConstellationError
from constellation_docker.gateway import DagsterClient
from constellation_docker.rollout import remove_environment
from constellation_docker.settings import Settings, load_settings
from deploy.local_dagster import REPOSITORY, LocalDagster, free_port
from deploy.local_gateway import LocalGateway

HOME = REPOSITORY / ".demo"
ENVIRONMENT = "demo"
NAME = os.environ.get("CONSTELLATION_DEMO_NAME") or "constellation-demo"
PREFERRED_UI_PORT = 3000
PREFERRED_ENDPOINT_PORT = 8080
PREFERRED_GATEWAY_PORT = 8700
QUESTION = "I loved this film, the acting was wonderful."
RUN_DEADLINE_SECONDS = 1800
ENDPOINT_DEADLINE_SECONDS = 10

console = Console(highlight=False, soft_wrap=True)


def main() -> int:
    """Start or stop the demo, or say which variables a shell needs to share its card store."""
    action = sys.argv[1] if len(sys.argv) > 1 else "start"
    try:
        if action == "env":
            return show_variables()
        with _alone():
            return {"start": start, "stop": stop}[action]()
    except ConstellationError as error:
        console.print(f"[bold red]✗[/] {error}")
        return 1
    except KeyboardInterrupt:
        console.print("\nInterrupted. `make demo` goes on where it was; `make demo-stop` removes everything.")
        return 130


def start() -> int:
    """Bring everything up, package, deploy, ask, and say where to look."""
    began = time.monotonic()
    dagster = _dagster()
    settings = _settings(dagster)
    gateway = _gateway(dagster)
    for name, part in (("Dagster[/] (webserver and daemon)", dagster), ("the gateway[/]", gateway)):
        is_running = part.is_running()
        console.print(f"[bold]· {'Running already:' if is_running else 'Starting'} {name}")
        if not is_running:
            _require_port(part)
        part.start()
    with CardStore.open(settings.store_url) as store, DagsterClient(dagster.url) as client:
        card = _example_card()
        if store.find(card.model_name, card.model_version) is None:
            console.print("[bold]· Registering the example's model card[/]")
        row = store.add(card)
        if row.published_at is None:
            console.print(f"[bold]· Packaging {row.key}[/]  {dagster.url}/jobs/package_model")
            _follow(client, _packaging_run(client, row))
        if not (_is_deployed(store, row) and _endpoint_is_ready(settings, row)):
            console.print(f"[bold]· Deploying it to the environment {ENVIRONMENT}[/]")
            _follow(client, client.deploy(ENVIRONMENT, row.card.model_name, tags={"user": "make demo"}))
    _show(settings, row, dagster, gateway, time.monotonic() - began)
    return 0


def stop() -> int:
    """End the processes and remove every container, network, image and file of the demo."""
    if not HOME.exists():
        console.print("There is no demo to stop.")
        return 0
    dagster = _dagster()
    settings = _settings(dagster)
    console.print("· Stopping the gateway and Dagster")
    _gateway(dagster).stop()
    dagster.stop()
    engine = Engine.connect()
    console.print("· Removing containers, networks and images")
    remove_environment(engine, project_name(ENVIRONMENT, settings.environment(ENVIRONMENT)), on_line=_say)
    _remove_images(engine)
    shutil.rmtree(HOME)
    console.print("Everything that the demo made is gone (the engine's build cache stays).")
    return 0


@contextmanager
def _alone() -> Iterator[None]:
    """One start or stop at a time in this directory; a second one waits for the first, and says so."""
    directory = os.open(REPOSITORY, os.O_RDONLY)
    try:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print("Another `make demo` or `make demo-stop` is at work here; waiting for its end.")
            fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def show_variables() -> int:
    """Print the variables that let a shell's command line share the demo's card store."""
    if not HOME.exists():
        console.print("There is no demo: start it with `make demo`.", markup=False)
        return 1
    for name, value in _dagster().environment.items():
        print(f"export {name}={shlex.quote(value)}")
    return 0


def _dagster() -> LocalDagster:
    """The demo's Dagster; its ports are chosen once and kept, so that a second start finds the first."""
    ports = _ports()
    variables = {
        "CONSTELLATION_HOME": str(HOME / "constellation"),
        "CONSTELLATION_SOURCE__ALLOWED_SCHEMES": json.dumps(["https", "ssh", "hf", "file"]),
        "CONSTELLATION_BUILD__IMAGE_PREFIX": NAME,
        "CONSTELLATION_ENVIRONMENTS": json.dumps({ENVIRONMENT: {"port": ports["endpoint"], "project": NAME}}),
    }
    return LocalDagster(home=HOME / "dagster", port=ports["ui"], environment=variables)


def _ports() -> dict[str, int]:
    path = HOME / "ports.json"
    preferred = {
        "ui": PREFERRED_UI_PORT,
        "endpoint": PREFERRED_ENDPOINT_PORT,
        "gateway": PREFERRED_GATEWAY_PORT,
    }
    ports: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    missing = {name: _free_or(port) for name, port in preferred.items() if name not in ports}
    if missing:
        HOME.mkdir(exist_ok=True)
        path.write_text(json.dumps(ports | missing))
    return ports | missing


def _require_port(part: LocalDagster | LocalGateway) -> None:
    """A demo keeps its ports; one whose process has ended may be somebody else's by now.

    Raises:
        ConstellationError: Somebody else listens there.
    """
    if not part.is_listening() and not _is_free(part.port):
        raise ConstellationError(
            f"Port {part.port} of 127.0.0.1, which this demo uses, is taken by another process.",
            remedy=f"End what listens there (`ss -ltnp 'sport = :{part.port}'` names it), or choose other ports by "
            "`make demo-stop` and `make demo`.",
        )


def _gateway(dagster: LocalDagster) -> LocalGateway:
    """The demo's gateway, before the demo's Dagster."""
    port = _ports()["gateway"]
    environment = {
        **dagster.environment,
        "CONSTELLATION_GATEWAY__WEBSERVER_URL": dagster.url,
        "CONSTELLATION_GATEWAY__PUBLIC_URL": f"http://127.0.0.1:{port}",
    }
    return LocalGateway(home=HOME / "gateway", port=port, environment=environment)


def _settings(dagster: LocalDagster) -> Settings:
    os.environ.update(dagster.environment)
    return load_settings()


def _remove_images(engine: Engine) -> None:
    """Remove the demo's images; the base images too, where no other installation has images on this engine."""
    images = engine.list_images({"constellation.role": None})
    # One image may bear names of several installations: an environment that they share. Ours go, theirs stay.
    ours = [tag for image in images for tag in image.tags if tag.startswith(f"{NAME}/")]
    are_alone = len(ours) == sum(max(1, len(image.tags)) for image in images)
    bases = engine.list_images({"constellation.base": None}) if are_alone else []
    for name in [*ours, *(tag for image in bases for tag in image.tags)]:
        with suppress(Conflict):
            engine.remove_image(name)


def _is_deployed(store: CardStore, row: ModelRow) -> bool:
    try:
        deployed = store.deployment(ENVIRONMENT, row.card.model_name)
    except DeploymentNotFound:
        return False
    return deployed.model_id == row.model_id and deployed.stable_revision == deployed.revision


def _example_card() -> ModelCard:
    directory = REPOSITORY / "examples" / "sentiment"
    return ModelCard.from_registration(
        {
            "model_name": "sentiment",
            "model_version": "1.0.0",
            "repo_url": directory.as_uri(),
            "branch": None,
            "model_card": {
                "description": "Says whether an English sentence is positive or negative.",
                "data_used": "Sentences generated by examples/train_sentiment.py.",
                "dependencies": [],
            },
        }
    )


def _packaging_run(client: DagsterClient, row: ModelRow) -> str:
    """The run that packages the row: the one that the sensor was quicker to start, or our own."""
    running = client.runs({"dagster/partition": row.key}, statuses=["QUEUED", "STARTING", "STARTED"], limit=1)
    return running[0].run_id if running else client.package(row.key, tags={"user": "make demo"})


def _follow(client: DagsterClient, run_id: str) -> None:
    """Print a run's log as it comes; a failed run ends the demo with its own sentence.

    Raises:
        ConstellationError: The run failed, was cancelled or took too long.
    """
    deadline = time.monotonic() + RUN_DEADLINE_SECONDS
    cursor: str | None = None
    failure, last_word = "", "Dagster says no more"
    while time.monotonic() < deadline:
        has_ended = (run := client.run(run_id)) is not None and run.has_ended
        entries, cursor = client.logs(run_id, cursor=cursor)
        for entry in entries:
            if entry.kind == "LogMessageEvent":
                _say(entry.message)
            elif entry.kind == "ExecutionStepSuccessEvent":
                console.print(f"  [green]✓[/] {entry.step}")
            elif entry.kind == "AssetCheckEvaluationEvent":
                verdict = entry.raw["evaluation"]
                mark = "[green]✓[/]" if verdict["success"] else "[red]✗[/]"
                console.print(f"    {mark} {verdict['checkName']}: {verdict['description'] or ''}")
            elif entry.kind == "ExecutionStepFailureEvent":
                failure = str((entry.raw.get("error") or {}).get("message") or entry.message)
            elif entry.kind == "EngineEvent":
                last_word = entry.message
        if has_ended and not entries:
            if run is not None and run.status == "SUCCESS":
                return
            raise ConstellationError(
                f"The run {run_id} failed: {failure or f'no step of it did, but: {last_word}'}",
                remedy=f"See {client.url}/runs/{run_id}; `make demo` tries it again.",
            )
        time.sleep(0.3)
    raise ConstellationError(
        f"The run {run_id} did not end in time.", remedy=f"See {client.url}/runs/{run_id}."
    )


def _show(
    settings: Settings, row: ModelRow, dagster: LocalDagster, gateway: LocalGateway, seconds: float
) -> None:
    environment = settings.environment(ENVIRONMENT)
    endpoint = f"http://{environment.bind}:{environment.port}/{row.card.slug}/"
    # A token is always sent along by the client if the machine has one; this endpoint needs none.
    answers = InferenceClient(model=endpoint, token="none").text_classification(QUESTION)
    question = json.dumps({"inputs": QUESTION})
    answer = json.dumps([{"label": item.label, "score": round(item.score, 4)} for item in answers])
    console.print()
    console.print(f"[bold green]It answers.[/] ({seconds:.0f} s)")
    console.print(f"  endpoint  {endpoint}   (a page to try it, in a browser)", markup=False)
    console.print(
        f"  request   curl -s {endpoint} -H 'Content-Type: application/json' -d '{question}'", markup=False
    )
    console.print(f"  answer    {answer}", markup=False)
    console.print(f"  UI        {dagster.url}/assets")
    key_path = gateway.key_path.relative_to(REPOSITORY)
    console.print(f"  gateway   {gateway.url}/docs   (log in with the key in {key_path})", markup=False)
    console.print(
        f'  list      curl -s {gateway.url}/docker/models/ -H "Authorization: Bearer $(cat {key_path})"',
        markup=False,
    )
    console.print(
        '  own model eval "$(make demo-env)" && .venv/bin/constellation-docker cards add card.yaml',
        markup=False,
    )
    console.print("  stop      make demo-stop")


def _endpoint_is_ready(settings: Settings, row: ModelRow) -> bool:
    environment = settings.environment(ENVIRONMENT)
    deadline = time.monotonic() + ENDPOINT_DEADLINE_SECONDS
    while time.monotonic() < deadline:
        with suppress(httpx.HTTPError):
            url = f"http://{environment.bind}:{environment.port}/{row.card.slug}/ready"
            if httpx.get(url, timeout=5, trust_env=False).status_code == 200:
                return True
        time.sleep(0.3)
    return False


def _say(line: str) -> None:
    if line.strip():
        console.print(f"  {line.rstrip()}", style="dim", markup=False)


def _free_or(preferred: int) -> int:
    return preferred if _is_free(preferred) else free_port()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
