"""Export at packaging: a transformers repository becomes an ONNX one, where that is proven to answer alike.

The work is done by `exporting/` in a container without network, as the repository is a stranger's. What comes
back is a source of its own in the store: the repository's files with the graph in place of the weights. So the
steps after this one, the runtime's choice first, need not know that there was an export. What is not kept
falls back to the transformers runtime, with the reason.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from constellation_docker.cards import ModelCard
from constellation_docker.engine import DeadlineExceeded, Engine, NotFound
from constellation_docker.errors import ConstellationError
from constellation_docker.packaging.base_image import BaseImage
from constellation_docker.packaging.context import plan_environment_context, stream_context
from constellation_docker.packaging.image import EXPIRES_LABEL, ROLE_LABEL
from constellation_docker.packaging.lock import DependencyLock, ServerRequirements, resolve_lock
from constellation_docker.packaging.materials import gather_materials
from constellation_docker.packaging.recipe import digest_of, plan_image
from constellation_docker.packaging.requirements import parse_lines
from constellation_docker.packaging.runtime import ONNX_TASKS, Runtime, RuntimeChoice, choose_runtime
from constellation_docker.packaging.source import Source
from constellation_docker.packaging.source_store import SourceStore
from constellation_docker.packaging.tree import SealedTree, seal_tree
from constellation_docker.packaging.verification.container import remove_stale_verifications
from constellation_docker.settings import GIBIBYTE, Settings

EXPORTING_PATH = Path(__file__).with_name("exporting")
EXPORT_SECONDS = 1800.0
"""Longest that one export may take."""
MAX_WEIGHT_BYTES = 2 * GIBIBYTE
"""Larger models stay on the transformers runtime: files go to the engine and come back through memory."""
_FIXED_MEMORY_BYTES = 3 * GIBIBYTE
_MEMORY_PER_WEIGHT = 8
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".ot", ".gguf", ".tflite")
_USER = 65532
_LOG_LINES = 60


class ExportRequired(ConstellationError):
    """The card asks for an export (`export: require`), and there is none that may be kept."""

    code = "export_required"


class ExportReport(BaseModel):
    """What became of an export.

    Attributes:
        kept: Whether the graph takes the weights' place.
        reason: One sentence: why, or why not.
        file: The graph's name: `model.onnx`, or `model_quantized.onnx` for 8-bit weights.
        largest_deviation: The largest difference of a score between graph and original; None without a graph.
        tolerance: The largest that was accepted.
        deviations: The largest difference of each trial.
        size_bytes: Size of the graph.
        original_bytes: Size of the weights that it replaces.
        steps: Seconds of each step inside the container.
        notes: What else is worth knowing, such as why 8-bit weights are not used.
        seconds: How long it took this time.
        is_cached: Whether it was done before.
        log_tail: The container's last lines, where it failed.
    """

    model_config = ConfigDict(frozen=True)

    kept: bool
    reason: str
    file: str | None = None
    largest_deviation: float | None = None
    tolerance: float | None = None
    deviations: dict[str, float] = {}
    size_bytes: int = 0
    original_bytes: int = 0
    steps: dict[str, float] = {}
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    is_cached: bool = False
    log_tail: str = ""


class Export(BaseModel):
    """What packaging goes on with.

    Attributes:
        report: What became of it; None where no export applies, and then `reason` says why.
        reason: One sentence for people.
        source: The repository with its graph, or the one that came in.
        choice: The runtime for that source.
    """

    model_config = ConfigDict(frozen=True)

    report: ExportReport | None
    reason: str
    source: Source
    choice: RuntimeChoice


def explain_no_export(source: Source, card: ModelCard, choice: RuntimeChoice) -> str:
    """Why a model is not to be exported, in one sentence; empty where it is.

    Args:
        source: The repository.
        card: Its card: `export` and `runtime`.
        choice: The runtime that was chosen without an export.
    """
    if Runtime(choice.runtime) is not Runtime.TRANSFORMERS:
        return f"The runtime is {choice.runtime}; only models for transformers are exported."
    if card.serving.export == "never":
        return "The card says never to export."
    if card.serving.runtime == "transformers" and card.serving.export != "require":
        return "The card asks for the transformers runtime."
    if choice.task not in ONNX_TASKS:
        return f"The onnx runtime does not serve {choice.task}."
    weights = _weight_bytes(source)
    if weights > MAX_WEIGHT_BYTES:
        return f"The weights have {weights:,} bytes; models over {MAX_WEIGHT_BYTES:,} are not exported."
    return ""


def export_source(
    source: Source,
    card: ModelCard,
    choice: RuntimeChoice,
    engine: Engine,
    *,
    base: BaseImage,
    settings: Settings,
    on_line: Callable[[str], None],
    is_cancelled: Callable[[], bool] = lambda: False,
    timeout_seconds: float = EXPORT_SECONDS,
) -> Export:
    """Export a repository to ONNX where its card allows and the graph answers alike.

    Args:
        source: The repository.
        card: The card, merged with the repository's: its examples are what graph and original are asked.
        choice: The runtime that was chosen for the repository as it is.
        engine: Where the exporter runs.
        base: The Python base image.
        settings: All settings: indexes, store, limits.
        on_line: Called with every line of progress.
        is_cancelled: Asked all along.
        timeout_seconds: Longest that the export may take, without making its environment.

    Returns:
        The source and runtime to go on with, and the report. The same inputs are not exported twice.

    Raises:
        ExportRequired: The card says `export: require`, and nothing may be kept.
        LockError, BuildFailed, EngineUnreachable…: The exporter's environment cannot be made. That an export
            itself fails is never raised but reported.
    """
    reason = explain_no_export(source, card, choice)
    if reason:
        is_onnx = Runtime(choice.runtime) is Runtime.ONNX
        if card.serving.export == "require" and not is_onnx:
            raise _required(card, reason)
        return Export(report=None, reason=reason, source=source, choice=choice)
    began = time.monotonic()
    lock = resolve_lock(
        source, card, choice, base=base, settings=settings.index, store=settings.home, on_line=on_line,
        server=exporter_requirements(),
    )  # fmt: skip
    key = export_key(source, card, choice, lock)
    store = SourceStore(settings.home)
    with store.exclusive(f"export {key}", timeout_seconds):
        records = _Records(settings.home / "exports")
        report, sealed = records.find(key, store)
        if report is None:
            image = ensure_exporter(lock, source, card, choice, base, engine, settings, on_line, is_cancelled)
            on_line(f"Exporting {card.key} to ONNX")
            workbench = _Workbench(engine, image, card, source, choice, timeout_seconds, is_cancelled)
            with store.scratch() as scratch:
                report, is_lasting = workbench.export(scratch)
                if report.kept:
                    sealed = _place(store, scratch, source, settings, key)
            if is_lasting:
                records.keep(key, report, sealed)
    report = report.model_copy(update={"seconds": round(time.monotonic() - began, 3)})
    on_line(f"{'Exported' if report.kept else 'Not exported'}: {report.reason}.")
    if sealed is None:
        if card.serving.export == "require":
            raise _required(card, report.reason, log_tail=report.log_tail)
        return Export(report=report, reason=report.reason, source=source, choice=choice)
    exported = source.model_copy(
        update={
            "digest": sealed.digest,
            "path": store.tree(sealed.digest),
            "files": sealed.files,
            "size_bytes": sealed.size_bytes,
        }
    )
    return Export(
        report=report,
        reason=report.reason,
        source=exported,
        choice=_choose_onnx(exported, card, choice, report),
    )


def exporter_requirements() -> ServerRequirements:
    """What the exporter needs, in the place of an inference server's requirements."""
    text = (EXPORTING_PATH / "requirements.txt").read_text(encoding="utf-8")
    return ServerRequirements(lines=tuple(parse_lines(text, "the exporter")))


def export_key(source: Source, card: ModelCard, choice: RuntimeChoice, lock: DependencyLock) -> str:
    """Content address of everything that decides an export's result."""
    program = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(EXPORTING_PATH.glob("*.py"))
    }
    facts = {
        "source": source.digest,
        "task": choice.task,
        "lock": lock.digest,
        "program": program,
        "tolerance": card.serving.tolerance,
        "quantize": card.serving.quantize,
        "examples": _examples(card),
    }
    return digest_of(facts).removeprefix("sha256:")


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
    image: str, *, model: str, arguments: list[str], weight_bytes: int, expires_at: float
) -> dict[str, Any]:
    """The body of `POST /containers/create`: no network, no rights, a read-only root, limits.

    Args:
        image: The exporter's image.
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
        "Labels": {
            ROLE_LABEL: "verification",
            EXPIRES_LABEL: f"{expires_at:.0f}",
            "constellation.subject": model,
        },
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


class _Workbench:
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
    ) -> None:
        self._engine = engine
        self._image = image
        self._card = card
        self._source = source
        self._choice = choice
        self._timeout_seconds = timeout_seconds
        self._is_cancelled = is_cancelled

    def export(self, scratch: Path) -> tuple[ExportReport, bool]:
        """Run the exporter; the graph goes to `scratch/graph`.

        Returns:
            The report, and whether the same inputs would give it again.
        """
        remove_stale_verifications(self._engine)
        config = render_export_container(
            self._image,
            model=self._card.key,
            arguments=self._arguments(),
            weight_bytes=_weight_bytes(self._source),
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
            _add(archive, "examples.json", json.dumps(_examples(self._card)).encode())
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
        return report.model_copy(update={"original_bytes": _weight_bytes(self._source)}), True

    def _failed(self, container: str, why: str) -> ExportReport:
        return ExportReport(
            kept=False,
            reason=f"The export failed: {why}",
            original_bytes=_weight_bytes(self._source),
            log_tail=self._engine.logs(container, tail=_LOG_LINES),
        )


class _Records:
    """Reports by what was exported, beside the sources."""

    def __init__(self, root: Path) -> None:
        self._root = root
        root.mkdir(parents=True, exist_ok=True)

    def find(self, key: str, store: SourceStore) -> tuple[ExportReport | None, SealedTree | None]:
        """The report, and the tree where a graph was kept and is still whole."""
        try:
            record = json.loads((self._root / f"{key}.json").read_bytes())
            report = ExportReport.model_validate(record["report"]).model_copy(update={"is_cached": True})
            if not report.kept:
                return report, None
            sealed = store.load(record["digest"])
        except (OSError, ValueError, KeyError, TypeError):
            return None, None
        return (report, sealed) if sealed is not None else (None, None)

    def keep(self, key: str, report: ExportReport, sealed: SealedTree | None) -> None:
        """Note a result."""
        record = {"report": report.model_dump(mode="json"), "digest": sealed.digest if sealed else None}
        part = self._root / f"{key}.{uuid.uuid4().hex}.part"
        part.write_text(json.dumps(record), encoding="utf-8")
        part.replace(self._root / f"{key}.json")


def _place(store: SourceStore, scratch: Path, source: Source, settings: Settings, key: str) -> SealedTree:
    """Put the repository's files, with the graph instead of the weights, into the store."""
    tree = scratch / "tree"
    for file in source.files:
        if file.path.endswith(_WEIGHTS) and _is_replaced(file.path):
            continue
        target = tree / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        origin = source.path / file.path
        if file.mode == "link":
            target.symlink_to(origin.readlink())
        else:
            _link_or_copy(origin, target)
    (tree / "onnx").mkdir(parents=True, exist_ok=True)
    for path in sorted((scratch / "graph").iterdir()):
        target = tree / "onnx" / path.name
        target.unlink(missing_ok=True)
        path.rename(target)
    sealed = seal_tree(tree, settings.source)
    store.place(tree, sealed, source.url, f"{source.commit}+onnx.{key}")
    return sealed


def _is_replaced(path: str) -> bool:
    """Weights at the top are the model's own; a dense layer in a directory below is read by the onnx runtime."""
    return "/" not in path


def _link_or_copy(origin: Path, target: Path) -> None:
    try:
        os.link(origin, target)
    except OSError:
        shutil.copy2(origin, target)


def _choose_onnx(
    source: Source, card: ModelCard, choice: RuntimeChoice, report: ExportReport
) -> RuntimeChoice:
    wanted = card.model_copy(update={"serving": card.serving.model_copy(update={"runtime": "onnx"})})
    chosen = choose_runtime(source, wanted)
    return chosen.model_copy(
        update={
            "reason": f"The weights were exported to onnx/{report.file}: {report.reason}.",
            "task": choice.task,
        }
    )


def _required(card: ModelCard, reason: str, **details: Any) -> ExportRequired:
    return ExportRequired(
        f"The card of {card.key} requires an export to ONNX, and there is none: {reason}",
        remedy="Say `export: auto` in the card, or raise its `tolerance`.",
        model=card.key,
        **details,
    )


def _examples(card: ModelCard) -> list[dict[str, Any]]:
    return [
        {"inputs": example.inputs, "parameters": dict(example.parameters)}
        for example in card.widget
        if example.src is None
    ]


def _weight_bytes(source: Source) -> int:
    return sum(
        file.size_bytes
        for file in source.files
        if file.path.endswith(_WEIGHTS[:2]) and _is_replaced(file.path)
    )


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    archive.addfile(entry, io.BytesIO(content))


def _add_file(archive: tarfile.TarFile, name: str, origin: Path) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = origin.stat().st_size, 0o644
    with origin.open("rb") as opened:
        archive.addfile(entry, opened)
