"""Durations as Go prints them."""

from __future__ import annotations

import pytest

from constellation_docker.compose.durations import go_duration, nanoseconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (0.0005, "500µs"),
        (0.5, "500ms"),
        (1, "1s"),
        (1.5, "1.5s"),
        (30, "30s"),
        (60, "1m0s"),
        (90, "1m30s"),
        (3600, "1h0m0s"),
        (3661.25, "1h1m1.25s"),
        (0.0015, "1.5ms"),
        (61.000001, "1m1.000001s"),
    ],
)
def test_a_duration_is_written_as_go_writes_it(seconds: float, text: str) -> None:
    assert go_duration(seconds) == text


def test_the_engine_wants_nanoseconds() -> None:
    assert nanoseconds(1.5) == 1_500_000_000
