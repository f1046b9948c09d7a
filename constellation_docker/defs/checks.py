"""The checks that must pass before an image is published, with one verdict per model version."""

from collections.abc import Iterator

import dagster as dg

from constellation_docker.defs import metadata
from constellation_docker.defs.failures import explained
from constellation_docker.defs.model_assets import LockRecord, SourceRecord
from constellation_docker.defs.partitions import partitioned_check
from constellation_docker.defs.resources import EngineResource, SettingsResource
from constellation_docker.defs.verdicts import IMAGE_ID, VERIFICATIONS
from constellation_docker.errors import ConstellationError
from constellation_docker.packaging import BuiltImage, inspect_code, verify_image


class CodeRefused(ConstellationError):
    """The repository's Python does not compile, or its handler has not the class that is called."""

    code = "code_refused"


@dg.multi_asset_check(
    specs=[
        partitioned_check(
            "code_compiles",
            "model_source",
            "All Python compiles, and a handler has the class that is called.",
            is_blocking=True,
        )
    ]
)
def inspect_source(
    context: dg.AssetCheckExecutionContext, model_source: SourceRecord
) -> Iterator[dg.AssetCheckResult]:
    """Read the repository's Python before anything is built from it; nothing of it is executed."""
    with explained(context, model_source.card.key, "inspecting the code"):
        failures = (
            [str(finding) for finding in inspect_code(model_source.source)] if model_source.source else []
        )
    yield dg.AssetCheckResult(
        check_name="code_compiles",
        asset_key="model_source",
        passed=not failures,
        description="; ".join(failures) or "All Python compiles.",
        metadata={"findings": metadata.table([{"finding": failure} for failure in failures])}
        if failures
        else {},
    )
    if failures:
        # Not by Dagster's bare list of names: the sentence is the step's, the run's tag and so the backend's.
        with explained(context, model_source.card.key, "inspecting the code"):
            raise CodeRefused(
                f"The code of {model_source.card.key} cannot be used: {'; '.join(failures)}.",
                remedy="Correct it in the repository, and launch its packaging again. Nothing was published.",
            )


@dg.multi_asset_check(
    specs=[
        partitioned_check("export_agrees", "dependency_lock", "An export to ONNX answers like the original.")
    ]
)
def compare_export(dependency_lock: LockRecord) -> Iterator[dg.AssetCheckResult]:
    """Whether an export to ONNX was kept; one that was not is a warning: the model is served as it is."""
    export = dependency_lock.export
    report = export.report if export else None
    yield dg.AssetCheckResult(
        check_name="export_agrees",
        asset_key="dependency_lock",
        passed=report is None or report.kept,
        severity=dg.AssetCheckSeverity.WARN,
        description=export.reason if export else "There is nothing to export.",
        metadata=metadata.export_metadata(export),
    )


@dg.multi_asset_check(
    specs=[
        partitioned_check(name, "model_image", description, reads=("model_source",), is_blocking=True)
        for name, description in VERIFICATIONS.items()
    ],
)
def verify_built_image(
    context: dg.AssetCheckExecutionContext,
    settings: SettingsResource,
    engines: EngineResource,
    model_source: SourceRecord,
    model_image: BuiltImage,
) -> Iterator[dg.AssetCheckResult]:
    """Start the image as in production, without network, and ask it what its card promises."""
    known = settings.load()
    with explained(context, model_source.card.key, "verifying the image"):
        report = verify_image(
            model_image,
            model_source.card,
            engines.building(),
            model_id=model_source.model_id,
            settings=known.verification,
            on_line=context.log.info,
        )
    for check in report.checks:
        yield dg.AssetCheckResult(
            check_name=check.name,
            asset_key="model_image",
            passed=check.passed,
            description=check.message,
            metadata=metadata.check_metadata(check)
            | {IMAGE_ID: dg.MetadataValue.text(report.image_id)}
            | ({} if check.passed else {"container log": metadata.log_end(report.log_tail)}),
        )
    with explained(context, model_source.card.key, "verifying the image"):
        report.raise_for_failures()
