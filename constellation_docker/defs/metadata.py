"""What a person sees on an asset's page: typed results turned into numbers, tables and Markdown.

Sizes are megabytes and durations seconds, as numeric metadata with the unit in its name, so that the UI plots them
over time and a person reads them: it shows numbers without any grouping of their digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import dagster as dg

from constellation_docker.cards import DeploymentRow, ModelCard, ModelRow
from constellation_docker.cards.front_matter import split_front_matter
from constellation_docker.compose import ComposeFile
from constellation_docker.packaging import (
    BaseImage,
    BuiltImage,
    CheckResult,
    DependencyLock,
    Export,
    PublishedImage,
    RuntimeChoice,
    Source,
)
from constellation_docker.rollout import RolloutResult

Metadata = dict[str, dg.MetadataValue]
Cell = str | int | float | bool | None

MOST_TABLE_ROWS = 200
MOST_LOG_LINES = 200
LONGEST_STEP = 90
"""Characters of a build step's name; the Dockerfile below has the whole."""


def table(rows: Sequence[Mapping[str, Cell]]) -> dg.MetadataValue:
    """A table with the columns of its first row; long ones are cut, and say so in their last row.

    Without rows it is a word: the UI draws an empty table as a column that is called nothing.
    """
    if not rows:
        return dg.MetadataValue.text("none")
    columns = list(rows[0])
    shown = [dg.TableRecord(dict(row)) for row in rows[:MOST_TABLE_ROWS]]
    if len(rows) > MOST_TABLE_ROWS:
        rest = f"… and {len(rows) - MOST_TABLE_ROWS} more"
        shown.append(dg.TableRecord({column: rest if i == 0 else "" for i, column in enumerate(columns)}))
    schema = dg.TableSchema(
        [dg.TableColumn(name=column, type=_column_type(row[column] for row in rows)) for column in columns]
    )
    return dg.MetadataValue.table(shown, schema)


def _column_type(values: Iterable[Cell]) -> str:
    seen = {type(value) for value in values if value is not None}
    return {frozenset({int}): "int", frozenset({float}): "float", frozenset({bool}): "bool"}.get(
        frozenset(seen), "string"
    )


def code_block(text: str, language: str = "") -> dg.MetadataValue:
    """Text in a fixed-width block; a fence inside the text cannot end it."""
    fence = "```"
    while fence in text:
        fence += "`"
    return dg.MetadataValue.md(f"{fence}{language}\n{text.rstrip()}\n{fence}")


def log_end(text: str) -> dg.MetadataValue:
    """The last lines of a log."""
    return code_block("\n".join(text.splitlines()[-MOST_LOG_LINES:]))


def _short(digest: str) -> str:
    """A digest that fits into a table's cell."""
    return f"{digest[:19]}…" if len(digest) > 20 else digest


def megabytes(size_bytes: int) -> float:
    """A size that a person reads and the UI plots: 10^6 bytes, three digits after the point."""
    return round(size_bytes / 1e6, 3)


def card_page(text: str) -> dg.MetadataValue:
    """A card as people read it: its Markdown first, then its front matter as the YAML that it is.

    The UI's Markdown knows no front matter: it would draw a line, and all of it as one paragraph.
    """
    front_matter, markdown = split_front_matter(text)
    if not front_matter:
        return dg.MetadataValue.md(markdown)
    fenced = code_block(front_matter, "yaml").value
    return dg.MetadataValue.md(f"{markdown.strip()}\n\n---\n\nFront matter:\n\n{fenced}")


def link_or_text(address: str) -> dg.MetadataValue:
    """A link where the address is one that a browser opens."""
    return (
        dg.MetadataValue.url(address)
        if address.startswith(("https://", "http://"))
        else dg.MetadataValue.text(address)
    )


def card_metadata(row: ModelRow, card: ModelCard) -> Metadata:
    """The maintained card and what identifies it.

    Args:
        row: The row, with what packaging learned where it is published.
        card: Its card, merged with the repository's where that is known.
    """
    return {
        "card": card_page(card.render(row.publication)),
        "model id": dg.MetadataValue.text(row.model_id),
        "revision": dg.MetadataValue.int(row.revision),
        "repository": link_or_text(card.repo_url),
        "branch": dg.MetadataValue.text(card.branch or "(the repository's default)"),
        "task": dg.MetadataValue.text(card.task or "(not stated)"),
        "dependencies": dg.MetadataValue.int(len(card.dependencies)),
        "example inputs": dg.MetadataValue.int(len(card.widget)),
        "card digest": dg.MetadataValue.text(card.digest),
        "registered": dg.MetadataValue.timestamp(row.created_at),
        "published": dg.MetadataValue.timestamp(row.published_at)
        if row.published_at
        else dg.MetadataValue.text("not yet"),
    }


def source_metadata(source: Source | None, card: ModelCard) -> Metadata:
    """The pinned commit, and what the repository holds, largest files first."""
    if source is None:
        return {
            "image": dg.MetadataValue.text(card.serving.image or ""),
            "kind": dg.MetadataValue.text("ready-made"),
        }
    largest = sorted(source.files, key=lambda file: -file.size_bytes)
    return {
        "commit": dg.MetadataValue.text(source.commit),
        "asked for": dg.MetadataValue.text(source.requested_revision or "(the default branch)"),
        "repository": link_or_text(source.url),
        "kind": dg.MetadataValue.text(source.kind),
        "source digest": dg.MetadataValue.text(source.digest),
        "size (MB)": dg.MetadataValue.float(megabytes(source.size_bytes)),
        "files": dg.MetadataValue.int(len(source.files)),
        "fetch (s)": dg.MetadataValue.float(round(source.seconds, 3)),
        "largest files": table(
            [
                {"path": file.path, "MB": megabytes(file.size_bytes), "sha256": file.sha256[:16]}
                for file in largest
            ]
        ),
        "card": card_page(card.render(None)),
    }


def lock_metadata(lock: DependencyLock | None, choice: RuntimeChoice, base: BaseImage) -> Metadata:
    """The lock as a table, and the runtime and base image that it is for."""
    chosen: Metadata = {
        "runtime": dg.MetadataValue.text(str(choice.runtime)),
        "why this runtime": dg.MetadataValue.text(choice.reason),
        "task": dg.MetadataValue.text(choice.task or "(the image's own)"),
        "weights": dg.MetadataValue.text(", ".join(choice.weights) or "(none)"),
        "base image": dg.MetadataValue.text(base.reference),
    }
    if lock is None or not lock.packages:
        return chosen | {"lock": dg.MetadataValue.text("none: the image brings its own environment")}
    return chosen | {
        "packages": dg.MetadataValue.int(len(lock.packages)),
        "resolve (s)": dg.MetadataValue.float(round(lock.seconds, 3)),
        "lock digest": dg.MetadataValue.text(lock.digest),
        "python": dg.MetadataValue.text(lock.python),
        "platform": dg.MetadataValue.text(lock.platform),
        "lock": table(
            [
                {
                    "package": package.name,
                    "version": package.version,
                    "required by": ", ".join(package.required_by),
                }
                for package in lock.packages
            ]
        ),
        "asked for": code_block("\n".join(lock.inputs)),
    }


def export_metadata(export: Export | None) -> Metadata:
    """What became of the export to ONNX, with its largest deviation."""
    if export is None or export.report is None:
        return {"export": dg.MetadataValue.text(export.reason if export else "nothing to export")}
    report = export.report
    shown: Metadata = {
        "export": dg.MetadataValue.text(report.reason),
        "export kept": dg.MetadataValue.bool(report.kept),
        "export (s)": dg.MetadataValue.float(report.seconds),
    }
    if report.largest_deviation is not None:
        shown["largest deviation"] = dg.MetadataValue.float(report.largest_deviation)
    if report.tolerance is not None:
        shown["tolerance"] = dg.MetadataValue.float(report.tolerance)
    if report.deviations:
        shown["deviations"] = table(
            [{"input": name, "deviation": deviation} for name, deviation in report.deviations.items()]
        )
    if report.log_tail:
        shown["export log"] = log_end(report.log_tail)
    return shown


def image_metadata(built: BuiltImage) -> Metadata:
    """Sizes by layer, the steps' durations and the Dockerfile."""
    return {
        "image": dg.MetadataValue.text(built.tag),
        "image id": dg.MetadataValue.text(built.image_id),
        "size (MB)": dg.MetadataValue.float(megabytes(built.size_bytes)),
        "build (s)": dg.MetadataValue.float(round(built.seconds, 3)),
        "already built": dg.MetadataValue.bool(built.is_cached),
        "recipe digest": dg.MetadataValue.text(built.recipe_digest),
        "layers": table(
            [
                {"layer": layer.name, "MB": megabytes(layer.size_bytes), "digest": _short(layer.digest)}
                for layer in built.layers
            ]
        ),
        "steps": table(
            [
                {"seconds": round(step.seconds, 2), "cached": step.is_cached, "step": _step_name(step.name)}
                for step in built.steps
            ]
        ),
        "labels": table([{"label": name, "value": value} for name, value in sorted(built.labels.items())]),
        "dockerfile": code_block(built.dockerfile, "dockerfile"),
    }


def _step_name(name: str) -> str:
    """A build step's name in one line that a page has room for."""
    line = " ".join(name.split())
    return line if len(line) <= LONGEST_STEP else f"{line[: LONGEST_STEP - 1]}…"


def check_metadata(check: CheckResult) -> Metadata:
    """What was sent, what came back and how long it took."""
    metadata: Metadata = {"seconds": dg.MetadataValue.float(round(check.seconds, 3))}
    if check.sent:
        metadata["sent"] = code_block(check.sent)
    if check.received:
        metadata["received"] = code_block(check.received)
    return metadata


def publication_metadata(published: PublishedImage) -> Metadata:
    """Where the image is, and by what it is pinned."""
    return {
        "reference": dg.MetadataValue.text(published.reference),
        "where": dg.MetadataValue.text(
            published.repository
            if published.is_pushed
            else "on the engine only, pinned by its id: no registry is configured"
        ),
        "tag": dg.MetadataValue.text(published.tag),
        "digest": dg.MetadataValue.text(published.digest or "(none without a registry)"),
        "pushed": dg.MetadataValue.bool(published.is_pushed),
        "publish (s)": dg.MetadataValue.float(round(published.seconds, 3)),
    }


def compose_metadata(compiled: ComposeFile) -> Metadata:
    """The file itself, and how much it holds."""
    return {
        "compose file": code_block(compiled.text, "yaml"),
        "project": dg.MetadataValue.text(compiled.project),
        "services": dg.MetadataValue.int(len(compiled.services)),
        "replicas": dg.MetadataValue.int(sum(item.wanted.replicas for item in compiled.services.values())),
    }


def rollout_metadata(result: RolloutResult, row: DeploymentRow) -> Metadata:
    """Where the service answers, what was done for it and how long each step took."""
    endpoint = result.endpoint_url
    reached: Metadata = {"endpoint": dg.MetadataValue.text(f"(none: it is wanted {row.state})")}
    if endpoint is not None:
        client = (
            f"from huggingface_hub import InferenceClient\n\nclient = InferenceClient(model={endpoint!r})"
        )
        reached = {"endpoint": link_or_text(endpoint), "try it": code_block(client, "python")}
    return reached | {
        "outcome": dg.MetadataValue.text(result.outcome),
        "version": dg.MetadataValue.text(row.row.card.model_version),
        "revision": dg.MetadataValue.int(row.revision),
        "replicas": dg.MetadataValue.int(len(result.replicas)),
        "containers": dg.MetadataValue.text(", ".join(result.replicas) or "(none)"),
        "generation": dg.MetadataValue.text(result.generation),
        "rollout (s)": dg.MetadataValue.float(result.seconds),
        "plan": table(result.plan.rows()),
        "steps": table(result.rows()),
    }
