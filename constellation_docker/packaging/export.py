"""Export at packaging: a transformers repository becomes an ONNX one, where that is proven to answer alike.

The work is done by `exporting/` in a container without network, as the repository is a stranger's. What comes
back is a source of its own in the store: the repository's files with the graph in place of the weights. So the
steps after this one, the runtime's choice first, need not know that there was an export. What is not kept
falls back to the transformers runtime, with the reason.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from constellation_docker.cards import ModelCard
from constellation_docker.engine import Engine
from constellation_docker.errors import ConstellationError
from constellation_docker.packaging.base_image import BaseImage
from constellation_docker.packaging.export_record import Export, ExportRecords, ExportReport
from constellation_docker.packaging.exporter import (
    EXPORTING_PATH,
    WEIGHTS,
    ExportContainer,
    ensure_exporter,
    examples_of,
    exporter_requirements,
    is_replaced,
    weight_bytes_of,
)
from constellation_docker.packaging.lock import DependencyLock, resolve_lock
from constellation_docker.packaging.recipe import digest_of
from constellation_docker.packaging.runtime import ONNX_TASKS, Runtime, RuntimeChoice, choose_runtime
from constellation_docker.packaging.source import Source
from constellation_docker.packaging.source_store import SourceStore
from constellation_docker.packaging.tree import SealedTree, seal_tree
from constellation_docker.settings import GIBIBYTE, Settings

EXPORT_SECONDS = 1800.0
"""Longest that one export may take."""
MAX_WEIGHT_BYTES = 2 * GIBIBYTE
"""Larger models stay on the transformers runtime: files go to the engine and come back through memory."""


class ExportRequired(ConstellationError):
    """The card asks for an export (`export: require`), and there is none that may be kept."""

    code = "export_required"


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
    weights = weight_bytes_of(source)
    if weights > MAX_WEIGHT_BYTES:
        return f"The weights have {weights:,} bytes; models over {MAX_WEIGHT_BYTES:,} are not exported."
    return ""


def export_source(
    source: Source,
    card: ModelCard,
    choice: RuntimeChoice,
    engine: Engine,
    *,
    model_id: str,
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
        model_id: The row's id; only one export of it may be under way at a time.
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
        records = ExportRecords(settings.home / "exports")
        report, sealed = records.find(key, store)
        if report is None:
            image = ensure_exporter(lock, source, card, choice, base, engine, settings, on_line, is_cancelled)
            on_line(f"Exporting {card.key} to ONNX")
            workbench = ExportContainer(
                engine, image, card, source, choice, timeout_seconds, is_cancelled, model_id
            )
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
        "examples": examples_of(card),
    }
    return digest_of(facts).removeprefix("sha256:")


def _place(store: SourceStore, scratch: Path, source: Source, settings: Settings, key: str) -> SealedTree:
    """Put the repository's files, with the graph instead of the weights, into the store."""
    tree = scratch / "tree"
    for file in source.files:
        if file.path.endswith(WEIGHTS) and is_replaced(file.path):
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
