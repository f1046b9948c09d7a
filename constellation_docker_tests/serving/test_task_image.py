"""Images: raw bytes, base64, data: URLs, and files that lie. On both runtimes, against transformers' pipelines."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import InferenceClient
from PIL import Image

from constellation_docker_tests.fixtures.model_server import ServedModel, ServeModel

TinyModel = Callable[[str], Path]


def picture(kind: str = "PNG", size: tuple[int, int] = (60, 40)) -> bytes:
    pixels = np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, kind)
    return out.getvalue()


@pytest.fixture(scope="module", params=["onnx", "transformers"])
def server(request: pytest.FixtureRequest, serve_model: ServeModel, tiny_model: TinyModel) -> ServedModel:
    return serve_model(tiny_model("vit"), task="image-classification", runtime=request.param)


@pytest.fixture(scope="module")
def expected(tiny_model: TinyModel) -> list[dict[str, float]]:
    from transformers import pipeline

    return pipeline("image-classification", model=str(tiny_model("vit")))(Image.open(io.BytesIO(picture())))


def test_raw_bytes_without_a_content_type_are_classified(server: ServedModel, expected) -> None:
    given = InferenceClient(server.url, token="hf_x").image_classification(picture())
    assert [i.label for i in given] == [i["label"] for i in expected]
    assert [i.score for i in given] == pytest.approx([i["score"] for i in expected], abs=2e-3)


def test_a_file_and_parameters_give_the_same(server: ServedModel, expected, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(picture())
    client = InferenceClient(server.url, token="hf_x")
    assert client.image_classification(path)[0].label == expected[0]["label"]
    assert [i.label for i in client.image_classification(picture(), top_k=1)] == [expected[0]["label"]]
    scores = client.image_classification(picture(), function_to_apply="sigmoid")
    assert sum(i.score for i in scores) != pytest.approx(1)


def test_a_data_url_is_read_and_another_url_is_not_fetched(server: ServedModel, expected) -> None:
    text = base64.b64encode(picture()).decode()
    given = server.post({"inputs": f"data:image/png;base64,{text}"}).json()
    assert given[0]["label"] == expected[0]["label"]
    refused = server.post({"inputs": "http://127.0.0.1:9/picture.png"})
    assert refused.status_code == 422
    assert "fetches nothing" in refused.json()["error"]


def bomb() -> bytes:
    """A PNG of some bytes that claims 50,000 by 50,000 pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (bomb(), "image/png", 413),
        (picture()[:200], "image/png", 422),
        (b"not an image", "image/jpeg", 422),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "image/svg+xml", 422),
        (b"", "image/png", 400),
        (picture(), "audio/wav", 415),
        (b'{"inputs": "not base64!"}', "application/json", 422),
        (b'{"inputs": 3}', "application/json", 422),
        (b'{"inputs": ""}', None, 422),
    ],
)
def test_files_that_lie_are_the_clients_fault(
    server: ServedModel, body: bytes, content_type: str | None, status: int
) -> None:
    headers = {"content-type": content_type} if content_type else {}
    answer = server.post(content=body, headers=headers)
    assert answer.status_code == status, answer.text
    assert server.post(content=picture()).status_code == 200


@pytest.mark.parametrize("kind", ["JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_common_formats_are_read(server: ServedModel, kind: str) -> None:
    assert server.post(content=picture(kind)).status_code == 200


def test_object_detection_answers_boxes(serve_model: ServeModel, tiny_model: TinyModel) -> None:
    from transformers import pipeline

    server = serve_model(tiny_model("detector"), task="object-detection", runtime="transformers")
    client = InferenceClient(server.url, token="hf_x")
    given = client.object_detection(picture(), threshold=0.01)
    expected = pipeline("object-detection", model=str(tiny_model("detector")))(
        Image.open(io.BytesIO(picture())), threshold=0.01
    )
    assert given
    by_score = sorted(expected, key=lambda item: -item["score"])
    assert [(i.label, i.box.xmin, i.box.ymax) for i in given] == [
        (i["label"], i["box"]["xmin"], i["box"]["ymax"]) for i in by_score
    ]
    assert client.object_detection(picture(), threshold=1.0) == []
