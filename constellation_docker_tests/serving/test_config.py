"""The configuration is read strictly, and what is wrong with it is said in one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from constellation_docker.serving.config import ConfigError, Options, read_config, resolve_config


def test_the_file_says_what_is_served_and_variables_override_its_options(tmp_path: Path) -> None:
    path = tmp_path / "serving.json"
    path.write_text(
        '{"model_name": "m", "revision": 3, "examples": [{"inputs": "x"}], "labels": {"a": 1},'
        ' "options": {"max_queue": 5, "grace_seconds": 2, "long_input": "refuse", "max_batch_size": null}}'
    )
    config = read_config(
        {
            "CONSTELLATION_SERVING_CONFIG": str(path),
            "SERVING_MAX_QUEUE": "7",
            "SERVING_PORT": "81",
            "SERVING_LOG_PAYLOADS": "1",
            "SERVING_GRACE_SECONDS": "",
        }
    )
    assert (config.model_name, config.revision, config.model_path) == ("m", "3", Path("/model"))
    assert (config.options.max_queue, config.options.port, config.options.log_payloads) == (7, 81, True)
    assert (config.options.grace_seconds, config.options.long_input) == (2.0, "refuse")
    assert config.options.max_batch_size == Options().max_batch_size
    assert config.extra == {"labels": {"a": 1}}


def test_an_empty_document_is_served_with_the_defaults() -> None:
    assert resolve_config({}, {}).options == Options()


@pytest.mark.parametrize(
    ("document", "environ", "named"),
    [
        ([], {}, "object"),
        ({"model_name": 3}, {}, "model_name"),
        ({"examples": ["x"]}, {}, "examples"),
        ({"options": []}, {}, "options"),
        ({"options": {"max_queue": "many"}}, {}, "options.max_queue"),
        ({"options": {"max_queue": 1.5}}, {}, "options.max_queue"),
        ({"options": {"max_queue": True}}, {}, "options.max_queue"),
        ({"options": {"max_queue": 0}}, {}, "options.max_queue"),
        ({"options": {"max_queue": [1]}}, {}, "options.max_queue"),
        ({"options": {"request_timeout_seconds": -1}}, {}, "options.request_timeout_seconds"),
        ({"options": {"long_input": "cut"}}, {}, "truncate, refuse"),
        ({}, {"SERVING_PORT": "http"}, "SERVING_PORT"),
        ({}, {"SERVING_GRACE_SECONDS": "inf"}, "SERVING_GRACE_SECONDS"),
        ({}, {"SERVING_GRACE_SECONDS": "nan"}, "SERVING_GRACE_SECONDS"),
        ({}, {"SERVING_LOG_PAYLOADS": "maybe"}, "SERVING_LOG_PAYLOADS"),
    ],
)
def test_what_is_wrong_is_named(document: Any, environ: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        resolve_config(document, environ)


@pytest.mark.parametrize("content", ["{", "[]", "\xff"])
def test_a_file_that_is_no_object_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "serving.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError):
        read_config({"CONSTELLATION_SERVING_CONFIG": str(path)})
