"""The packaging benchmark turns times into the promised figures, and says where one is not kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import packaging
from benchmarks.compose_scale import many_services, measure_compiling
from benchmarks.packaging import Figure, RuntimeTimes, plan_figures, read_requirements, render_report


def _times(runtime: str, **changes: object) -> RuntimeTimes:
    given: dict[str, object] = {
        "naive_first": [20.0],
        "ours_first": [15.0],
        "build_first": [14.0],
        "bare_first": [12.0],
        "naive": [10.0, 12.0, 11.0],
        "ours": [1.2, 1.1, 5.0],
        "build": [1.0],
        "bare": [1.0],
        "source": [0.1],
        "lock": [0.0],
        "size_bytes": 100,
        "naive_size_bytes": 150,
    }
    return RuntimeTimes(runtime, **(given | changes))  # type: ignore[arg-type]


def _figure(figures: list[Figure], part: str) -> Figure:
    (found,) = [figure for figure in figures if part in figure.name]
    return found


def test_ratios_are_of_medians() -> None:
    figures = plan_figures([_times("onnx")], {})
    assert _figure(figures, "row to image of a second version / bare").measured == pytest.approx(1.2)
    assert _figure(figures, "build of a second version / naive").measured == pytest.approx(1 / 11)


def test_a_figure_that_is_not_kept_says_so() -> None:
    figures = plan_figures([_times("onnx", build=[9.0])], {})
    figure = _figure(figures, "build of a second version / naive")
    assert not figure.is_kept and figure.row()[-1] == "**no**"


def test_torch_is_held_to_a_tenth() -> None:
    figures = plan_figures([_times("transformers", launch=[1.0], start=[0.5])], {})
    assert {
        figure.promised for figure in figures if "second version / naive" in figure.name and figure.promised
    } == {0.1}


def test_image_sizes_are_compared_only_where_both_were_built() -> None:
    onnx, torch = _times("onnx"), _times("transformers", size_bytes=1000)
    assert not any("image size" in figure.name for figure in plan_figures([onnx], {}))
    assert _figure(plan_figures([onnx, torch], {}), "image size").measured == pytest.approx(0.1)


def test_launches_are_compared_only_where_they_were_measured() -> None:
    assert not any("launch" in figure.name for figure in plan_figures([_times("onnx")], {}))
    figures = plan_figures([_times("onnx", launch=[5.0], start=[3.0])], {})
    figure = _figure(figures, "launch to `model_image`")
    assert figure.measured == pytest.approx(5 / 11) and figure.promised == 0.5
    assert _figure(figures, "without Dagster's start").measured == pytest.approx(2.0)


def test_time_per_model_is_compared_between_sizes() -> None:
    figures = plan_figures([], {500: 0.2, 1000: 0.4, 2000: 1.2})
    assert _figure(figures, "1,000 / 500").measured == pytest.approx(1.0)
    assert not _figure(figures, "2,000 / 1,000").is_kept


def test_the_report_holds_every_figure_and_every_time() -> None:
    measured, compiling = [_times("onnx"), _times("transformers")], {1000: 0.4, 2000: 0.8}
    report = render_report(plan_figures(measured, compiling), measured, compiling, "Measured today.\n")
    for part in ("Measured today", "second version, naive | 11.00 s (10.00–12.00)", "1,000 models", "× "):
        assert part in report


def test_naive_builds_install_what_our_server_requires() -> None:
    lines = read_requirements("onnx")
    assert any(line.startswith("onnxruntime") for line in lines)
    assert not any(line.startswith("#") or not line for line in lines)


def test_naive_builds_get_a_sites_own_build_of_a_package() -> None:
    assert packaging.plan_requirements(["torch>=2.8,<3", "numpy>=2"], {"torch": "2.13.0+cpu"}) == [
        "torch==2.13.0+cpu",
        "numpy>=2",
    ]


def test_a_large_environment_compiles_with_all_its_models() -> None:
    assert len({service.slug for service in many_services(300)}) == 300
    assert set(measure_compiling((20, 40), repeats=1)) == {20, 40}


def test_a_partial_run_leaves_the_results_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(packaging, "COUNTS", (1000,))
    monkeypatch.setattr(packaging, "record_section", lambda *_: pytest.fail("it recorded half a section"))
    packaging.main(["--only", "compose"])
    assert "Compose file of 1,000 models" in capsys.readouterr().out
