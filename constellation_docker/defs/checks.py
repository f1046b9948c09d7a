"""Asset checks, one verdict per model version. All of them block publishing.

Dagster's checks are asset-level unless they carry partitions, and then one version's failure would show
on all; `partitions_def` on a check spec is a preview feature of Dagster 1.13 that does what is needed.
"""

import warnings
from collections.abc import Iterator

import dagster as dg

from constellation_docker.defs import metadata
from constellation_docker.defs.failures import RETRY_WHAT_PASSES, explained
from constellation_docker.defs.model_assets import SourceRecord, model_image, model_source
from constellation_docker.defs.partitions import MODEL_VERSIONS
from constellation_docker.defs.resources import EngineResource, SettingsResource
from constellation_docker.packaging import BuiltImage, inspect_code, verify_image

VERIFICATIONS = {
    "starts_as_in_production": "Runs non-root on a read-only root, without capabilities or network, within its limits.",
    "becomes_ready": "Says that it is ready within its deadline.",
    "answers_examples": "Answers the card's example inputs through the real Hugging Face client.",
    "rejects_malformed_input": "Answers malformed input with 4xx, and goes on.",
    "finishes_request_in_flight": "Finishes the request in flight on SIGTERM, then exits.",
}


def _spec(
    name: str, asset: dg.AssetsDefinition, description: str, *reads: dg.AssetsDefinition
) -> dg.AssetCheckSpec:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return dg.AssetCheckSpec(
            name,
            asset=asset,
            description=description,
            additional_deps=reads,
            blocking=True,
            partitions_def=MODEL_VERSIONS,
        )


@dg.multi_asset_check(
    specs=[
        _spec(
            "code_compiles", model_source, "All Python compiles, and a handler has the class that is called."
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
    _end_step(model_source.card.key, failures)


@dg.multi_asset_check(
    specs=[
        _spec(name, model_image, description, model_source) for name, description in VERIFICATIONS.items()
    ],
    retry_policy=RETRY_WHAT_PASSES,
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
            settings=known.verification,
            on_line=context.log.info,
        )
    failures = []
    for check in report.checks:
        if not check.passed and not check.is_skipped:
            failures.append(check.message)
        yield dg.AssetCheckResult(
            check_name=check.name,
            asset_key="model_image",
            passed=check.passed,
            description=check.message,
            metadata=metadata.check_metadata(check)
            | ({} if check.passed else {"container log": metadata.log_end(report.log_tail)}),
        )
    _end_step(model_source.card.key, failures, report.log_tail)


def _end_step(model: str, failures: list[str], log_tail: str = "") -> None:
    """Fail with the sentences of the checks, instead of Dagster's bare list of their names."""
    if failures:
        raise dg.Failure(
            f"{model}: " + " ".join(failures) + " Nothing was published.",
            metadata={"container log": metadata.log_end(log_tail)} if log_tail else {},
            allow_retries=False,
        )
