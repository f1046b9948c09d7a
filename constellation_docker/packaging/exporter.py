"""The exporter: its image, its container without network, and what goes in and comes out."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from constellation_docker.cards import ModelCard
from constellation_docker.engine import DeadlineExceeded, Engine, NotFound
from constellation_docker.packaging.base_image import BaseImage
from constellation_docker.packaging.context import plan_environment_context, stream_context
from constellation_docker.packaging.export_record import ExportReport
from constellation_docker.packaging.image import ROLE_LABEL
from constellation_docker.packaging.lock import DependencyLock, ServerRequirements
from constellation_docker.packaging.materials import gather_materials
from constellation_docker.packaging.recipe import plan_image
from constellation_docker.packaging.requirements import parse_lines
from constellation_docker.packaging.runtime import RuntimeChoice
from constellation_docker.packaging.source import Source
from constellation_docker.packaging.verification.container import remove_trials, trial_labels
from constellation_docker.settings import GIBIBYTE, Settings

EXPORTING_PATH = Path(__file__).with_name("exporting")
_FIXED_MEMORY_BYTES = 3 * GIBIBYTE
_MEMORY_PER_WEIGHT = 8
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".ot", ".gguf", ".tflite")
_USER = 65532
_LOG_LINES = 60


def exporter_requirements() -> ServerRequirements:
    """What the exporter needs, in the place of an inference server's requirements."""
    text = (EXPORTING_PATH / "requirements.txt").read_text(encoding="utf-8")
    return ServerRequirements(lines=tuple(parse_lines(text, "the exporter")))


def ensure_exporter(
    lock: DependencyLock,
    source: Source,
    card: ModelCard,
    choice: RuntimeChoice,
    base: BaseImage,
    engine: Engine,
    settings: Settings,
    on_line: Callable[[str], None],
    is_cancelled: Callable[[], bool] = lambda: False,
) -> str:
    """The image that exports, built like any environment unless the engine has it. Returns its name.

    Raises:
        BuildFailed, BuildCancelled, DiskFull, EngineUnreachable: As they say.
    """
    recipe = plan_image(card, source, lock, choice, base, model_id="export")
    name = f"{settings.build.image_prefix}/exporter:{recipe.environment_digest.partition(':')[2][:24]}"
    if engine.image(name) is not None:
        return name
    materials = gather_materials(
        lock, settings.index, architecture=engine.version.architecture, store=settings.home, on_line=on_line
    )
    engine.build(
        stream_context(plan_environment_context(recipe, materials)),
        tag=name,
        target="environment-built",
        labels={ROLE_LABEL: "exporter", "constellation.lock-digest": lock.digest},
        platform=engine.version.platform,
        network=settings.build.network,
        on_line=on_line,
        is_cancelled=is_cancelled,
        timeout_seconds=settings.build.timeout_seconds,
    )
    return name


def render_export_container(
    image: str, *, model_id: str, model: str, arguments: list[str], weight_bytes: int, expires_at: float
) -> dict[str, Any]:
    """The body of `POST /containers/create`: no network, no rights, a read-only root, limits.

    Args:
        image: The exporter's image.
        model_id: The row's id, for a label.
        model: `name@version`, for a label.
        arguments: The program's arguments.
        weight_bytes: Size of the weights, which decides about memory.
        expires_at: When it may be removed by whoever finds it, in seconds since 1970.
    """
    memory = _FIXED_MEMORY_BYTES + _MEMORY_PER_WEIGHT * weight_bytes
    variables = {"PYTHONPATH": "/work", "HOME": "/tmp", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}  # noqa: S108
    return {
        "Image": image,
        "Entrypoint": ["/env/bin/python", "-m", "exporting"],
        "Cmd": arguments,
        "Env": [f"{name}={value}" for name, value in sorted(variables.items())],
        "User": f"{_USER}:{_USER}",
        "WorkingDir": "/work",
        # A volume of its own, removed with the container: the root is read-only.
        "Volumes": {"/work": {}},
        "Labels": trial_labels(model_id, model, expires_at),
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "ReadonlyRootfs": True,
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges:true"],
            "RestartPolicy": {"Name": "no"},
            "LogConfig": {"Type": "json-file", "Config": {"max-size": "5m", "max-file": "1"}},
            "NetworkMode": "none",
            "Memory": memory,
            "MemorySwap": memory,
            "PidsLimit": 512,
            "Tmpfs": {"/tmp": "rw,nosuid,nodev,mode=1777"},  # noqa: S108  the container's own
        },
    }


class ExportContainer:
    """One export in one container."""

    def __init__(
        self,
        engine: Engine,
        image: str,
        card: ModelCard,
        source: Source,
        choice: RuntimeChoice,
        timeout_seconds: float,
        is_cancelled: Callable[[], bool],
        model_id: str,
    ) -> None:
        self._engine = engine
        self._image = image
        self._card = card
        self._source = source
        self._choice = choice
        self._timeout_seconds = timeout_seconds
        self._is_cancelled = is_cancelled
        self._model_id = model_id

    def export(self, scratch: Path) -> tuple[ExportReport, bool]:
        """Run the exporter; the graph goes to `scratch/graph`.

        Returns:
            The report, and whether the same inputs would give it again.
        """
        remove_trials(self._engine, model_id=self._model_id)
        config = render_export_container(
            self._image,
            model_id=self._model_id,
            model=self._card.key,
            arguments=self._arguments(),
            weight_bytes=weight_bytes_of(self._source),
            expires_at=time.time() + self._timeout_seconds + 120,
        )
        name = f"constellation-export-{uuid.uuid4().hex[:12]}"
        with self._engine.temporary_container(name, config) as container:
            self._engine.put_archive(container, "/work", self._pack())
            self._engine.start(container)
            try:
                code = self._engine.wait(
                    container, timeout_seconds=self._timeout_seconds, is_cancelled=self._is_cancelled
                )
            except DeadlineExceeded:
                return self._failed(
                    container, f"it took longer than {self._timeout_seconds:g} seconds"
                ), False
            if code != 0:
                state = (self._engine.container(container) or {}).get("State") or {}
                memory = config["HostConfig"]["Memory"]
                why = f"it ended with code {code}"
                if state.get("OOMKilled"):
                    why = f"it needs more memory than the {memory:,} bytes that it got"
                return self._failed(container, why), False
            return self._collect(container, scratch)

    def _arguments(self) -> list[str]:
        serving = self._card.serving
        arguments = ["--model", "/work/model", "--out", "/work/out", "--task", str(self._choice.task)]
        arguments += ["--examples", "/work/examples.json"]
        if serving.tolerance is not None:
            arguments += ["--tolerance", repr(float(serving.tolerance))]
        return [*arguments, "--quantize"] if serving.quantize else arguments

    def _pack(self) -> bytes:
        """The exporter, the repository without its other graphs, the examples, and a place for the result."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for directory in ("exporting", "model", "out"):
                entry = tarfile.TarInfo(directory)
                entry.type, entry.mode = tarfile.DIRTYPE, 0o755
                entry.uid = entry.gid = _USER
                archive.addfile(entry)
            for path in sorted(EXPORTING_PATH.glob("*.py")):
                _add(archive, f"exporting/{path.name}", path.read_bytes())
            _add(archive, "examples.json", json.dumps(examples_of(self._card)).encode())
            for file in self._source.files:
                # A link leads to another file of the tree; its content is what counts here.
                origin = self._source.path / file.path
                if origin.is_file() and not file.path.endswith(".onnx"):
                    _add_file(archive, f"model/{file.path}", origin)
        return packed.getvalue()

    def _collect(self, container: str, scratch: Path) -> tuple[ExportReport, bool]:
        graph = scratch / "graph"
        graph.mkdir()
        try:
            packed = self._engine.get_archive(container, "/work/out")
        except NotFound:
            return self._failed(container, "it left no result"), False
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                opened = archive.extractfile(member) if member.isreg() else None
                if opened is not None and (name == "report.json" or name.startswith("model")):
                    with (graph / name).open("wb") as written:
                        shutil.copyfileobj(opened, written)
        try:
            report = ExportReport.model_validate_json((graph / "report.json").read_bytes())
        except (OSError, ValidationError):
            return self._failed(container, "it left no report that can be read"), False
        (graph / "report.json").unlink()
        if report.kept and not (report.file and (graph / report.file).is_file()):
            return self._failed(container, "it left no graph"), False
        return report.model_copy(update={"original_bytes": weight_bytes_of(self._source)}), True

    def _failed(self, container: str, why: str) -> ExportReport:
        return ExportReport(
            kept=False,
            reason=f"The export failed: {why}",
            original_bytes=weight_bytes_of(self._source),
            log_tail=self._engine.logs(container, tail=_LOG_LINES),
        )


def examples_of(card: ModelCard) -> list[dict[str, Any]]:
    """What graph and original are asked: the card's examples that need no file."""
    return [
        {"inputs": example.inputs, "parameters": dict(example.parameters)}
        for example in card.widget
        if example.src is None
    ]


def weight_bytes_of(source: Source) -> int:
    """Size of the weights that a graph would replace."""
    return sum(
        file.size_bytes for file in source.files if file.path.endswith(WEIGHTS[:2]) and is_replaced(file.path)
    )


def is_replaced(path: str) -> bool:
    """Weights at the top are the model's own; a dense layer in a directory below is read by the onnx runtime."""
    return "/" not in path


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    archive.addfile(entry, io.BytesIO(content))


def _add_file(archive: tarfile.TarFile, name: str, origin: Path) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = origin.stat().st_size, 0o644
    with origin.open("rb") as opened:
        archive.addfile(entry, opened)
