"""What packaging costs: a second version, our overhead, image sizes, a large Compose file.

    python -m benchmarks.packaging                      everything but torch, a few minutes
    python -m benchmarks.packaging --transformers       torch + transformers as well (several GB of images, for a while)
    python -m benchmarks.packaging --only compose
    python -m benchmarks.packaging --launch             with whole launches through a Dagster of its own

The things compared run one after the other in the same process, several times, and their medians are compared. The
section of `RESULTS.md` is replaced only by a run that measured everything that the section holds.

The images are removed at the end, but the engine keeps its build cache (about 10 GB with torch), which only its
administrator may prune; DOCKER_HOST names another engine where that matters.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Final, Protocol

from packaging.requirements import Requirement

from benchmarks.compose_scale import COUNTS, measure_compiling
from benchmarks.naive_build import build_naively, prepare_platform
from benchmarks.results import describe_machine, record_section, render_table
from benchmarks.workbench import LaunchTimes, Workbench, open_workbench
from constellation_docker.packaging.recipe import SERVING_PATH

TITLE: Final = "Packaging"
MIB: Final = 1024 * 1024


class Launches(Protocol):
    """Whole launches, as the backend submits them, on the engine of the workbench."""

    def launch(self, version: str, repository: Path, *, runtime: str) -> LaunchTimes:
        """Launch the packaging of a version, and wait for its end."""
        ...


@dataclass(frozen=True)
class Figure:
    """A figure that was promised, and what it came to.

    Args:
        name: What it is.
        measured: The ratio or the seconds.
        promised: The most that it may be; None: nothing was promised.
        unit: `×` for ratios, `s` for seconds.
    """

    name: str
    measured: float
    promised: float | None = None
    unit: str = "×"

    @property
    def is_kept(self) -> bool:
        """Whether the promise holds."""
        return self.promised is None or self.measured <= self.promised

    def row(self) -> tuple[str, str, str, str]:
        promised = "" if self.promised is None else f"≤ {self.promised:.3g} {self.unit}"
        kept = "" if self.promised is None else ("yes" if self.is_kept else "**no**")
        return self.name, f"{self.measured:.3f} {self.unit}", promised, kept


@dataclass
class RuntimeTimes:
    """Seconds of one runtime's builds; a list holds one number for each repeat.

    Attributes:
        runtime: `onnx` or `transformers`.
        naive, ours, build, bare: A second version: the naive build; our packaging from the row to the image; the
            build within it; the engine alone with the same contexts.
        naive_first, ours_first, build_first, bare_first: The same of a first version, without the engine's layers.
        source, lock: Our steps before the build.
        launch, start: From submitting a launch to `model_image`, and of it until its first step began; empty where
            launches were not asked for.
        size_bytes: Our image, unpacked.
        naive_size_bytes: The naive image, without the wheels that were laid beside it.
        layer_bytes: Our image's layers, unpacked, by what they hold.
    """

    runtime: str
    naive_first: list[float] = field(default_factory=list)
    ours_first: list[float] = field(default_factory=list)
    build_first: list[float] = field(default_factory=list)
    bare_first: list[float] = field(default_factory=list)
    naive: list[float] = field(default_factory=list)
    ours: list[float] = field(default_factory=list)
    build: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    source: list[float] = field(default_factory=list)
    lock: list[float] = field(default_factory=list)
    launch: list[float] = field(default_factory=list)
    start: list[float] = field(default_factory=list)
    size_bytes: int = 0
    naive_size_bytes: int = 0
    layer_bytes: dict[str, int] = field(default_factory=dict)


def measure_runtime(
    bench: Workbench, runtime: str, *, repeats: int, first_repeats: int, launches: Launches | None = None
) -> RuntimeTimes:
    """Build first and second versions naively, by ourselves and barely, in turn.

    Args:
        bench: Where.
        runtime: `onnx` or `transformers`.
        repeats: How many second versions of each kind.
        first_repeats: How many first ones.
        launches: Whole launches; None: they are not measured.
    """
    times = RuntimeTimes(runtime)
    python = bench.base.python_path or "python3"
    # Left to itself pip would take torch with CUDA, five gigabytes that our image does not have either.
    local = bench.local_versions(runtime)
    requirements = plan_requirements(read_requirements(runtime), local)
    wheelhouse = bench.settings.index.wheelhouse
    wheels = [wheel for name in local for wheel in (wheelhouse.glob(f"{name}-*.whl") if wheelhouse else ())]
    platform = prepare_platform(bench.engine, bench.base, bench.settings.index, wheels=wheels)
    bench.tags.append(platform)

    def naive(*, is_fresh: bool = False) -> float:
        _, repository = bench.new_version()
        tag = bench.new_tag(f"naive-{runtime}")
        seconds = build_naively(
            bench.engine,
            repository,
            platform=platform,
            python=python,
            requirements=requirements,
            tag=tag,
            network=bench.settings.build.network,
            is_fresh=is_fresh,
        ).seconds
        times.naive_size_bytes = (
            bench.engine.require_image(tag).size_bytes
            - bench.engine.require_image(platform).size_bytes
            + bench.base.size_bytes
        )
        return seconds

    for number in range(first_repeats):
        bench.say(f"{runtime}: first versions, {number + 1} of {first_repeats}: naive, bare, ours")
        times.naive_first.append(naive(is_fresh=True))
        times.bare_first.append(bench.build_barely(*bench.new_version(), runtime=runtime, is_fresh=True))
        first = bench.package(*bench.new_version(), runtime=runtime, is_fresh=True)
        times.ours_first.append(first.seconds)
        times.build_first.append(first.build_seconds)
        times.size_bytes = first.image.size_bytes
        times.layer_bytes = {layer.name: layer.size_bytes for layer in first.image.layers}
    for number in range(repeats):
        bench.say(f"{runtime}: second versions, {number + 1} of {repeats}: naive, ours, bare")
        times.naive.append(naive())
        packaged = bench.package(*bench.new_version(), runtime=runtime)
        assert not packaged.image.is_cached
        times.ours.append(packaged.seconds)
        times.build.append(packaged.build_seconds)
        times.source.append(packaged.source_seconds)
        times.lock.append(packaged.lock_seconds)
        times.bare.append(bench.build_barely(*bench.new_version(), runtime=runtime))
        if launches:
            launched = launches.launch(*bench.new_version(), runtime=runtime)
            times.launch.append(launched.seconds)
            times.start.append(launched.start_seconds)
    return times


def read_requirements(runtime: str) -> list[str]:
    """What the inference server of a runtime requires, as a person would write it into `requirements.txt`."""
    text = (SERVING_PATH / "requirements" / f"{runtime}.txt").read_text(encoding="utf-8")
    return [
        line
        for line in (line.partition(" #")[0].strip() for line in text.splitlines())
        if line[:1] not in "#"
    ]


def plan_requirements(lines: Sequence[str], local: Mapping[str, str]) -> list[str]:
    """Requirements in which packages of a site's own build are pinned to it."""
    names = {line: Requirement(line).name for line in lines}
    return [f"{name}=={local[name]}" if name in local else line for line, name in names.items()]


def plan_figures(measured: Sequence[RuntimeTimes], compiling: dict[int, float]) -> list[Figure]:
    """The promised figures, from what was measured."""
    figures: list[Figure] = []
    limits = {"onnx": (0.2, 0.5), "transformers": (0.1, 0.1)}
    by_runtime = {times.runtime: times for times in measured}
    for runtime, times in by_runtime.items():
        build_limit, launch_limit = limits[runtime]
        naive, naive_first = median(times.naive), median(times.naive_first)
        bare, bare_first = median(times.bare), median(times.bare_first)
        figures += [
            Figure(
                f"{runtime}: build of a second version / naive build",
                median(times.build) / naive,
                build_limit,
            ),
            Figure(f"{runtime}: row to image of a second version / naive build", median(times.ours) / naive),
            Figure(
                f"{runtime}: row to image of a second version / bare engine build",
                median(times.ours) / bare,
                1.5,
            ),
            Figure(
                f"{runtime}: row to image of a first version / bare engine build",
                median(times.ours_first) / bare_first,
                1.5,
            ),
            Figure(
                f"{runtime}: row to image of a first version / naive build",
                median(times.ours_first) / naive_first,
            ),
        ]
        if times.launch:
            figures += [
                Figure(
                    f"{runtime}: launch to `model_image` of a second version / naive build",
                    median(times.launch) / naive,
                    launch_limit,
                ),
                Figure(
                    f"{runtime}: launch of a second version, without Dagster's start / bare engine build",
                    (median(times.launch) - median(times.start)) / bare,
                    1.5,
                ),
            ]
    if {"onnx", "transformers"} <= set(by_runtime):
        ratio = by_runtime["onnx"].size_bytes / by_runtime["transformers"].size_bytes
        figures.append(Figure("image size: onnx / transformers, same model", ratio, 1 / 3))
    if compiling:
        counts = sorted(compiling)
        figures.append(Figure("Compose file of 1,000 models: processor time", compiling[1000], 1.0, "s"))
        for smaller, larger in pairwise(counts):
            figures.append(
                Figure(
                    f"Compose file: time per model, {larger:,} / {smaller:,} models",
                    (compiling[larger] / larger) / (compiling[smaller] / smaller),
                    1.25,
                )
            )
    return figures


def render_report(
    figures: Sequence[Figure], measured: Sequence[RuntimeTimes], compiling: dict[int, float], machine: str
) -> str:
    """The section of `RESULTS.md`."""
    parts = [
        machine,
        render_table(("figure", "measured", "promised", "kept"), [figure.row() for figure in figures]),
    ]
    if measured:
        parts.append(_render_times(measured))
    if compiling:
        rows = [
            (f"{count:,} models", f"{seconds:.2f} s", f"{1000 * seconds / count:.2f} ms")
            for count, seconds in sorted(compiling.items())
        ]
        parts.append(
            "Compiling and validating a Compose file (median processor time):\n\n"
            + render_table(("environment", "whole", "for each model"), rows)
        )
    return "\n".join(parts)


def _render_times(measured: Sequence[RuntimeTimes]) -> str:
    def seconds(values: Sequence[float]) -> str:
        if not values:
            return "–"
        spread = f" ({min(values):.2f}–{max(values):.2f})" if len(values) > 1 else ""
        return f"{median(values):.2f} s{spread}"

    def row(name: str, attribute: str) -> tuple[str, ...]:
        return (name, *(seconds(getattr(times, attribute)) for times in measured))

    rows = [
        row("first version, naive", "naive_first"),
        row("first version, bare engine build", "bare_first"),
        row("first version, ours, row to image", "ours_first"),
        row("· of it the build", "build_first"),
        row("second version, naive", "naive"),
        row("second version, bare engine build", "bare"),
        row("second version, ours, row to image", "ours"),
        row("· of it fetching the source", "source"),
        row("· of it the lock", "lock"),
        row("· of it the build", "build"),
    ]
    if any(times.launch for times in measured):
        rows += [
            row("second version, launch to `model_image`", "launch"),
            row("· of it Dagster's queue and start", "start"),
        ]
    rows += [
        ("image, naive", *(f"{times.naive_size_bytes / MIB:.0f} MiB" for times in measured)),
        ("image, ours", *(f"{times.size_bytes / MIB:.0f} MiB" for times in measured)),
        *(
            (f"· layer {name}", *(f"{times.layer_bytes.get(name, 0) / MIB:.1f} MiB" for times in measured))
            for name in measured[0].layer_bytes
        ),
    ]
    return (
        "The sentiment example; every version has weights of its own and the same requirements. *Naive* is `COPY . .`, then "
        "`pip install`, on the same base image, with the same requirements as our server; pip, its certificates and the wheel of "
        "torch without CUDA were put there beforehand. *Bare* is the engine with the very contexts that we send. First versions are built "
        "without the engine's layer cache; packages are downloaded by pip and taken from uv's cache mount where it is warm. "
        "Medians (fastest–slowest).\n\n" + render_table(("", *(times.runtime for times in measured)), rows)
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--only", choices=["builds", "compose"], help="measure one half only; RESULTS.md stays"
    )
    parser.add_argument("--transformers", action="store_true", help="measure torch + transformers as well")
    parser.add_argument(
        "--launch", action="store_true", help="measure whole launches through Dagster as well"
    )
    parser.add_argument("--repeats", type=int, default=3, help="second versions of each kind")
    parser.add_argument("--no-record", action="store_true", help="leave RESULTS.md as it is")
    arguments = parser.parse_args(argv)

    began = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - began:5.0f} s] {line}", file=sys.stderr, flush=True)

    measured: list[RuntimeTimes] = []
    compiling: dict[int, float] = {}
    machine = describe_machine()
    if arguments.only != "builds":
        say("Compose files")
        compiling = measure_compiling(COUNTS)
    if arguments.only != "compose":
        with ExitStack() as stack:
            bench = stack.enter_context(open_workbench(say=say))
            machine = describe_machine(
                f"Docker Engine {bench.engine.version.engine}",
                f"Python {bench.base.python_version} from {bench.base.origin}",
            )
            launches: Launches | None = None
            if arguments.launch:
                from benchmarks.launches import open_launches

                launches = stack.enter_context(open_launches(bench))
            for runtime in ["onnx", *(["transformers"] if arguments.transformers else [])]:
                # A first version of torch takes minutes and gigabytes; one is enough to see what it is.
                first_repeats = 1 if runtime == "transformers" else arguments.repeats
                measured.append(
                    measure_runtime(
                        bench,
                        runtime,
                        repeats=arguments.repeats,
                        first_repeats=first_repeats,
                        launches=launches,
                    )
                )
    figures = plan_figures(measured, compiling)
    report = render_report(figures, measured, compiling, machine)
    print(report)
    if not arguments.no_record and arguments.only is None:
        record_section(TITLE, report)
        say("Wrote benchmarks/RESULTS.md")
    return 0 if all(figure.is_kept for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
