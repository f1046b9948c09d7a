"""A repository's own handler.py: what it is given, what becomes of what it returns, and what it may not do."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import InferenceClient
from PIL import Image

from constellation_docker.serving.config import Config
from constellation_docker.serving.loading import load_model
from constellation_docker.serving.model import Call, LoadFailed, RawAnswer, Request, ServingError
from constellation_docker.serving.strict_json import render_json
from constellation_docker_tests.fixtures.deadline import wait_for
from constellation_docker_tests.fixtures.inference_server import InferenceServer, StartServer
from constellation_docker_tests.fixtures.model_server import ServeModel

HANDLER = """
import asyncio, dataclasses, datetime, decimal, enum, os, pathlib, sys, uuid
import numpy as np
from PIL import Image
import neighbour

@dataclasses.dataclass
class Point:
    x: int
    y: float

class Colour(enum.Enum):
    RED = "red"

class Refusal(Exception):
    def __init__(self, status_code, detail):
        self.status_code, self.detail = status_code, detail

class Opaque:
    pass

def loop():
    value = []
    value.append(value)
    return value

ANSWERS = {
    "array": lambda: {"a": np.eye(2, dtype=np.float16), "s": np.float32(1.5), "i": np.int64(3), "b": np.bool_(True)},
    "bytes": lambda: b"\\x00\\x01",
    "dataclass": lambda: [Point(1, 2.0), Colour.RED, {1: None}],
    "odd": lambda: [pathlib.PurePosixPath("/x"), uuid.UUID(int=1), datetime.date(2024, 1, 2), decimal.Decimal("1.5"), {1}],
    "image": lambda: Image.new("RGB", (2, 2), (255, 0, 0)),
    "nan": lambda: {"scores": [1.0, float("nan")]},
    "array-nan": lambda: np.array([np.inf]),
    "opaque": lambda: {"deep": [Opaque()]},
    "loop": loop,
    "exit": lambda: sys.exit(3),
    "interrupt": lambda: (_ for _ in ()).throw(KeyboardInterrupt()),
    "raise": lambda: 1 / 0,
    "refuse": lambda: (_ for _ in ()).throw(Refusal(404, "no such customer")),
    "busy": lambda: (_ for _ in ()).throw(Refusal(429, "come back")),
    "kwargs": lambda: (_ for _ in ()).throw(ValueError("The following `model_kwargs` are not used by the model: ['x']")),
    "generator": lambda: (i for i in range(3)),
}

class EndpointHandler:
    def __init__(self, path=""):
        self.path = path
        self.calls = 0

    def __call__(self, data):
        self.calls += 1
        inputs = data.pop("inputs", data)
        if isinstance(inputs, str) and inputs in ANSWERS:
            return ANSWERS[inputs]()
        return {"type": type(inputs).__name__, "rest": data, "neighbour": neighbour.NAME, "path": self.path,
                "value": inputs if isinstance(inputs, (str, dict, list)) else None}
"""
ASYNC_HANDLER = """
import asyncio
class EndpointHandler:
    max_batch_size = 4
    paths = ("/", "/v1/chat/completions")
    def __init__(self, path):
        self.lock = None
        self.batches = []
    def warm_up(self):
        self.is_warm = True
    async def __call__(self, data):
        self.lock = self.lock or asyncio.Lock()
        async with self.lock:
            await asyncio.sleep(0)
        if data["inputs"] == "pieces":
            return self.pieces()
        return {"echo": data["inputs"], "warm": self.is_warm}
    async def pieces(self):
        for i in range(3):
            yield {"piece": i}
    def run_batch(self, requests):
        if any(r["inputs"] == "poison" for r in requests):
            raise RuntimeError("poison")
        self.batches.append(len(requests))
        return [{"together": len(requests), "echo": r["inputs"]} for r in requests]
"""
SLOW_HANDLER = """
import time
class EndpointHandler:
    def __init__(self, path=""): pass
    def __call__(self, data):
        time.sleep(data.get("seconds", 0))
        return data
"""

LEAKY_HANDLER = """
import os, resource
class EndpointHandler:
    def __init__(self, path=""):
        self.kept = []
        own = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (own + 300_000_000,) * 2)
        files = len(os.listdir("/proc/self/fd"))
        resource.setrlimit(resource.RLIMIT_NOFILE, (files + 30,) * 2)
    def __call__(self, data):
        if data["inputs"] == "memory":
            self.kept.append(bytearray(40_000_000))
        if data["inputs"] == "files":
            self.kept.append(os.open("/dev/null", os.O_RDONLY))
        return len(self.kept)
"""


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    def make(source: str, **others: str) -> Path:
        path = tmp_path_factory.mktemp("repository")
        (path / "handler.py").write_text(source)
        for name, text in others.items():
            (path / f"{name}.py").write_text(text)
        return path

    return make


@pytest.fixture(scope="module")
def model(write: Callable[..., Path]) -> Any:
    return load_model(Config(runtime="custom", model_path=write(HANDLER, neighbour="NAME = 'next door'")))


def ask(model: Any, body: Any, content_type: str | None = None, **request: Any) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    (answer,) = model.run([model.parse(Request(raw, content_type, **request))])
    return answer


def test_the_json_object_arrives_as_it_came_and_neighbouring_files_can_be_imported(model) -> None:
    answer = ask(model, {"inputs": {"a": [1]}, "parameters": {"k": 2}, "other": None})
    assert answer["value"] == {"a": [1]}
    assert answer["rest"] == {"parameters": {"k": 2}, "other": None}
    assert answer["neighbour"] == "next door"
    assert Path(answer["path"]).is_dir()


def png() -> bytes:
    out = io.BytesIO()
    Image.new("RGBA", (3, 2)).save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(
    ("body", "content_type", "type_name"),
    [
        (png(), "image/png", "Image"),
        (png(), None, "Image"),
        (b"RIFF....WAVE", "audio/x-wav", "bytes"),
        (b"\x00\x01", None, "bytes"),
        (b"\x00\x01", "application/octet-stream", "bytes"),
        (b"hello", "text/plain", "str"),
        (b'{"inputs": "a"}', None, "str"),
        (b'{"inputs": "a"}', "application/json; charset=utf-8", "str"),
    ],
)
def test_other_bodies_are_decoded_as_on_hugging_face_endpoints(model, body, content_type, type_name) -> None:
    assert ask(model, body, content_type)["type"] == type_name


def test_query_parameters_stand_in_for_parameters(model) -> None:
    answer = ask(model, b"\x00", None, query={"top_k": "3", "verbose": "true", "name": "x"})
    assert answer["rest"] == {"parameters": {"top_k": 3, "verbose": True, "name": "x"}}


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"[1]", "application/json", 422),
        (b"", None, 400),
        (png()[:40], None, 422),
    ],
)
def test_bodies_that_cannot_be_read_are_the_clients_fault(model, body, content_type, status) -> None:
    try:
        answer = ask(model, body, content_type)
    except ServingError as problem:
        answer = problem
    assert isinstance(answer, ServingError) and answer.status == status


@pytest.mark.parametrize(
    ("inputs", "answer"),
    [
        ("array", {"a": [[1.0, 0.0], [0.0, 1.0]], "s": 1.5, "i": 3, "b": True}),
        ("bytes", base64.b64encode(b"\x00\x01").decode()),
        ("dataclass", [{"x": 1, "y": 2.0}, "red", {"1": None}]),
        ("odd", ["/x", "00000000-0000-0000-0000-000000000001", "2024-01-02", 1.5, [1]]),
        ("generator", [0, 1, 2]),
    ],
)
def test_what_it_returns_becomes_json(model, inputs: str, answer: Any) -> None:
    assert json.loads(render_json(ask(model, {"inputs": inputs}))) == answer


def test_images_and_bytes_are_sent_raw_to_a_client_that_accepts_them(model) -> None:
    image = ask(model, {"inputs": "image"}, accept="image/jpeg")
    assert (
        isinstance(image, RawAnswer) and image.body[:2] == b"\xff\xd8" and image.content_type == "image/jpeg"
    )
    assert ask(model, {"inputs": "bytes"}, accept="audio/wav") == RawAnswer(b"\x00\x01", "audio/wav")
    assert base64.b64decode(ask(model, {"inputs": "image"}, accept="*/*")).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("inputs", "status", "says"),
    [
        ("nan", 500, "nan at scores[1]"),
        ("array-nan", 500, "inf at [0]"),
        ("opaque", 500, "handler.Opaque at deep[0]"),
        ("loop", 500, "holds itself"),
        ("exit", 500, "sys.exit"),
        ("raise", 500, "ZeroDivisionError"),
        ("refuse", 404, "no such customer"),
        ("busy", 429, "come back"),
        ("kwargs", 400, "model_kwargs"),
    ],
)
def test_what_it_raises_or_cannot_return_is_one_clear_sentence(
    model, inputs: str, status: int, says: str
) -> None:
    answer = ask(model, {"inputs": inputs})
    assert isinstance(answer, ServingError)
    assert answer.status == status
    assert says in answer.message
    assert "Traceback" not in answer.message


def test_an_async_handler_keeps_one_loop_and_batches_only_because_it_says_so(write) -> None:
    model: Any = load_model(Config(runtime="custom", model_path=write(ASYNC_HANDLER)))
    model.warm_up()
    assert model.max_batch_size == 4
    assert model.paths == {"/", "/v1/chat/completions"}
    assert ask(model, {"inputs": "a"}) == {"echo": "a", "warm": True}
    assert ask(model, {"inputs": "b"})["echo"] == "b"
    calls = [model.parse(Request(json.dumps({"inputs": text}).encode())) for text in "abc"]
    assert model.run(calls) == [{"together": 3, "echo": text} for text in "abc"]
    calls[1] = Call({"inputs": "poison"})
    assert [answer["echo"] for answer in model.run(calls)] == ["a", "poison", "c"]
    streaming = model.parse(Request(b'{"inputs": "pieces", "stream": true}'))
    assert streaming.is_streaming
    assert list(model.stream(streaming)) == [{"piece": i} for i in range(3)]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import no_such_package_at_all", "ModuleNotFoundError: No module named 'no_such_package_at_all'"),
        ("def broken(:", "SyntaxError"),
        ("x = 1", "no class EndpointHandler"),
        ("EndpointHandler = 3", "no class EndpointHandler"),
        (
            "class EndpointHandler:\n    def __init__(self, path): raise ValueError('weights are gone')",
            "weights are gone",
        ),
        ("class EndpointHandler:\n    def __init__(self, path): pass", "no __call__"),
        ("import sys; sys.exit(9)", "SystemExit: 9"),
    ],
)
def test_a_handler_that_cannot_be_made_is_refused_in_one_sentence(write, source: str, says: str) -> None:
    with pytest.raises(LoadFailed) as failed:
        load_model(Config(runtime="custom", model_path=write(source)))
    assert says in str(failed.value)
    assert "\n" not in str(failed.value)


def test_a_handler_outside_the_repository_is_refused(write) -> None:
    with pytest.raises(LoadFailed, match="has no"):
        load_model(Config(runtime="custom", model_path=write(HANDLER), handler="../handler.py"))


def test_the_server_survives_a_handler_that_exits_raises_or_blocks(serve_model: ServeModel, write) -> None:
    path = write(HANDLER, neighbour="NAME = 1")
    server = serve_model(path, task=None, runtime="custom")
    for inputs in ("exit", "interrupt", "raise", "opaque", "loop"):
        answer = server.post({"inputs": inputs})
        assert answer.status_code == 500, inputs
        assert set(answer.json()) >= {"error", "error_type"}
        assert "Traceback" not in answer.text
    slow = serve_model(write(SLOW_HANDLER), task=None, runtime="custom", request_timeout_seconds=0.5)
    assert slow.post({"seconds": 1.5}).status_code == 504
    assert slow.get("/live").status_code == 200
    wait_for(lambda: slow.post({"seconds": 0}).status_code == 200, what="the end of the slow call")


@pytest.mark.parametrize(("leak", "says"), [("memory", "MemoryError"), ("files", "OSError")])
def test_the_server_outlives_what_a_handler_leaks(
    write, start_server: StartServer, tmp_path: Path, leak: str, says: str
) -> None:
    """Up to the process's limits: the calls that need more fail, others and the server go on."""
    config = tmp_path / "serving.json"
    config.write_text(json.dumps({"runtime": "custom", "model_path": str(write(LEAKY_HANDLER))}))
    server = start_server(
        "constellation_docker.serving", environ={"CONSTELLATION_SERVING_CONFIG": str(config)}
    )
    with server.client() as client:
        statuses = [client.post("/", json={"inputs": leak}).status_code for _ in range(40)]
        assert statuses[0] == 200
        assert statuses[-1] == 500
        assert client.post("/", json={"inputs": "nothing"}).status_code == 200
        assert client.get("/ready").status_code == 200
    assert says in json.dumps(server.wait_for_event("model_fault")[0])


def test_the_real_client_reaches_a_handler(serve_model: ServeModel, write) -> None:
    server = serve_model(write(HANDLER, neighbour="NAME = 1"), task="sentence-similarity", runtime="custom")
    client = InferenceClient(server.url, token="hf_x")
    assert client.sentence_similarity("a", other_sentences=["b"])["type"] == "dict"


def test_the_log_tells_what_the_client_is_not_told(write, tmp_path: Path) -> None:
    config = tmp_path / "serving.json"
    config.write_text(
        json.dumps({"runtime": "custom", "model_path": str(write(HANDLER, neighbour="NAME = 1"))})
    )
    server = InferenceServer("constellation_docker.serving", {"CONSTELLATION_SERVING_CONFIG": str(config)})
    try:
        server.wait_until_ready()
        with server.client() as client:
            assert client.post("/", json={"inputs": "raise"}).status_code == 500
        (fault,) = server.wait_for_event("model_fault")
        assert "division by zero" in json.dumps(fault)
    finally:
        server.close()
