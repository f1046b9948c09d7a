"""What became of exports, and where that is kept."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from constellation_docker.packaging.runtime import RuntimeChoice
from constellation_docker.packaging.source import Source
from constellation_docker.packaging.source_store import SourceStore
from constellation_docker.packaging.tree import SealedTree


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


class ExportRecords:
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
