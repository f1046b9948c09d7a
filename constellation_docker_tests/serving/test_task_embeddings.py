"""/v1/embeddings, asked by the openai client, which wants base64 unless told otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import openai
import pytest

from constellation_docker_tests.fixtures.model_server import ServedModel, ServeModel

TinyModel = Callable[[str], Path]


@pytest.fixture(scope="module")
def server(serve_model: ServeModel, tiny_model: TinyModel) -> ServedModel:
    return serve_model(tiny_model("sentence"), task="feature-extraction", runtime="onnx")


@pytest.fixture(scope="module")
def client(server: ServedModel) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="not-a-key", max_retries=0)


def test_base64_and_lists_hold_the_same_vectors(client: openai.OpenAI) -> None:
    texts = ["the movie was good", "walk the dog"]
    packed = client.embeddings.create(model="any", input=texts)
    listed = client.embeddings.create(model="any", input=texts, encoding_format="float")
    assert [item.index for item in packed.data] == [0, 1]
    for one, other in zip(packed.data, listed.data, strict=True):
        np.testing.assert_allclose(one.embedding, other.embedding, atol=1e-6)
        assert np.linalg.norm(one.embedding) == pytest.approx(1, abs=1e-5)
    assert packed.usage.prompt_tokens == packed.usage.total_tokens == 11


def test_fewer_dimensions_are_the_first_ones_scaled_anew(client: openai.OpenAI) -> None:
    whole = client.embeddings.create(model="any", input="good").data[0].embedding
    short = client.embeddings.create(model="any", input="good", dimensions=4).data[0].embedding
    np.testing.assert_allclose(short, np.array(whole[:4]) / np.linalg.norm(whole[:4]), atol=1e-5)
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.embeddings.create(model="any", input="good", dimensions=33)
    assert "at most 32" in str(refused.value.body)


def test_token_ids_are_refused_clearly(client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client.embeddings.create(model="any", input=[1, 2, 3])
    assert "token ids; this server takes texts only" in str(refused.value.body)


def test_a_model_without_a_pooling_gives_the_mean_of_its_tokens(
    serve_model: ServeModel, tiny_model: TinyModel
) -> None:
    server = serve_model(tiny_model("encoder"), task="feature-extraction", runtime="onnx")
    tokens = np.array(server.post({"inputs": "good movie"}).json())
    vector = server.post({"input": "good movie"}, path="/v1/embeddings").json()["data"][0]["embedding"]
    mean = tokens.mean(axis=0)
    np.testing.assert_allclose(vector, mean / np.linalg.norm(mean), atol=1e-5)
