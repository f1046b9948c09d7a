"""text-generation, completions and chat on the transformers runtime, asked by the real clients."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError, ValidationError
from huggingface_hub.inference import _common

from constellation_docker_tests.fixtures.model_server import ServedModel, ServeModel

TinyModel = Callable[[str], Path]
PROMPT = "the quick brown fox"


@pytest.fixture(scope="module")
def server(serve_model: ServeModel, tiny_model: TinyModel) -> ServedModel:
    return serve_model(tiny_model("gpt2"), task="text-generation", runtime="transformers")


@pytest.fixture
def client(server: ServedModel) -> InferenceClient:
    _common._UNSUPPORTED_TEXT_GENERATION_KWARGS.clear()
    return InferenceClient(server.url, token="hf_not_a_token")


@pytest.fixture(scope="module")
def openai_client(server: ServedModel) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="not-a-key", max_retries=0)


@pytest.fixture(scope="module")
def expected(tiny_model: TinyModel) -> str:
    """What transformers' own pipeline continues the prompt with, greedily, without the prompt."""
    from transformers import pipeline

    generate = pipeline("text-generation", model=str(tiny_model("gpt2")))
    return str(
        generate(PROMPT, max_new_tokens=12, do_sample=False, return_full_text=False)[0]["generated_text"]
    )


def test_the_answer_is_the_continuation_without_the_prompt(client: InferenceClient, expected: str) -> None:
    assert client.text_generation(PROMPT, max_new_tokens=12) == expected
    assert client.text_generation(PROMPT, max_new_tokens=12, return_full_text=True) == PROMPT + expected


def test_details_hold_every_token_and_why_it_ended(client: InferenceClient, expected: str) -> None:
    answer = client.text_generation(PROMPT, max_new_tokens=12, details=True)
    assert answer.generated_text == expected
    assert answer.details.finish_reason == "length"
    assert answer.details.generated_tokens == len(answer.details.tokens) == 12
    assert "".join(token.text for token in answer.details.tokens) == expected
    assert all(token.logprob <= 0 for token in answer.details.tokens)


def test_a_stream_gives_the_same_text_token_by_token(client: InferenceClient, expected: str) -> None:
    assert "".join(client.text_generation(PROMPT, max_new_tokens=12, stream=True)) == expected
    events = list(client.text_generation(PROMPT, max_new_tokens=12, stream=True, details=True))
    assert len(events) == 12
    assert [event.index for event in events] == list(range(1, 13))
    assert events[-1].generated_text == expected
    assert events[-1].details.finish_reason == "length"
    assert all(event.generated_text is None for event in events[:-1])


def test_a_stop_text_ends_the_answer_and_is_no_part_of_it(client: InferenceClient, expected: str) -> None:
    stop = expected[5:8]
    before = expected[: expected.index(stop)]
    answer = client.text_generation(PROMPT, max_new_tokens=12, stop=[stop], details=True)
    assert answer.generated_text == before
    assert answer.details.finish_reason == "stop_sequence"
    assert "".join(client.text_generation(PROMPT, max_new_tokens=12, stop=[stop], stream=True)) == before


def test_drawing_with_a_seed_repeats_itself_and_without_one_does_not(client: InferenceClient) -> None:
    def draw(**options: Any) -> str:
        return client.text_generation(PROMPT, max_new_tokens=20, temperature=2.0, **options)

    assert draw(seed=7) == draw(seed=7)
    assert len({draw(seed=seed) for seed in range(5)}) > 1
    assert len({draw() for _ in range(5)}) > 1


def test_parameters_that_are_not_served_are_named_and_the_client_goes_on_without_them(
    client: InferenceClient, server: ServedModel, expected: str
) -> None:
    with pytest.warns(UserWarning, match="watermark"):
        assert client.text_generation(PROMPT, max_new_tokens=12, watermark=True) == expected
    answer = server.post({"inputs": PROMPT, "parameters": {"typo": 1}})
    assert answer.status_code == 400
    assert "The following `model_kwargs` are not used by the model: ['typo']" in answer.json()["error"]


def test_a_wrong_value_is_the_clients_own_validation_error(client: InferenceClient) -> None:
    with pytest.raises(ValidationError, match="max_new_tokens"):
        client.text_generation(PROMPT, max_new_tokens=0)
    with pytest.raises(ValidationError, match="top_p"):
        client.text_generation(PROMPT, top_p=1.5)


def test_a_prompt_longer_than_the_model_keeps_its_end(server: ServedModel) -> None:
    long = server.post({"inputs": "hello world " * 500, "parameters": {"max_new_tokens": 5}})
    assert long.status_code == 200
    short = server.post({"inputs": "hello world", "parameters": {"max_new_tokens": 500, "details": True}})
    tokens = short.json()[0]["details"]["generated_tokens"]
    assert 100 < tokens < 128


def test_several_prompts_are_continued_as_each_alone(server: ServedModel, expected: str) -> None:
    given = server.post({"inputs": [PROMPT, "hello"], "parameters": {"max_new_tokens": 12}}).json()
    alone = server.post({"inputs": "hello", "parameters": {"max_new_tokens": 12}}).json()
    assert [item["generated_text"] for item in given] == [expected, alone[0]["generated_text"]]


MESSAGES: list[Any] = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hello"}]


def test_chat_answers_a_message_and_counts_tokens(client: InferenceClient) -> None:
    answer = client.chat_completion(MESSAGES, max_tokens=6)
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage.completion_tokens == 6
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 6


def test_chat_streams_the_same_message(client: InferenceClient) -> None:
    whole = client.chat_completion(MESSAGES, max_tokens=10).choices[0].message.content
    pieces = list(
        client.chat_completion(MESSAGES, max_tokens=10, stream=True, stream_options={"include_usage": True})
    )
    assert "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices) == whole
    assert pieces[-2].choices[0].finish_reason == "length"
    assert pieces[-1].usage.completion_tokens == 10


def test_the_openai_client_chats_with_log_probabilities(openai_client: openai.OpenAI) -> None:
    answer = openai_client.chat.completions.create(
        model="any",
        messages=MESSAGES,
        max_completion_tokens=4,
        temperature=0,
        logprobs=True,
        top_logprobs=3,
        n=1,
    )
    assert answer.object == "chat.completion"
    assert answer.model == "gpt2"
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None and len(logprobs.content) == 4
    first = logprobs.content[0]
    assert first.token == first.top_logprobs[0].token
    assert [item.logprob for item in first.top_logprobs] == sorted(
        (i.logprob for i in first.top_logprobs), reverse=True
    )


def test_the_openai_client_streams_and_may_leave_early(openai_client: openai.OpenAI) -> None:
    stream = openai_client.chat.completions.create(
        model="any",
        messages=[{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
        max_tokens=90,
        stream=True,
    )
    first = next(iter(stream))
    assert first.choices[0].delta.role == "assistant"
    stream.close()
    again = openai_client.chat.completions.create(model="any", messages=MESSAGES, max_tokens=2)
    assert again.choices[0].finish_reason == "length"


def test_the_openai_client_completes(openai_client: openai.OpenAI, expected: str) -> None:
    answer = openai_client.completions.create(model="any", prompt=PROMPT, max_tokens=12)
    assert answer.choices[0].text == expected
    echoed = openai_client.completions.create(model="any", prompt=PROMPT, max_tokens=12, echo=True)
    assert echoed.choices[0].text == PROMPT + expected
    pieces = openai_client.completions.create(model="any", prompt=PROMPT, max_tokens=12, stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == expected


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "`tools`"),
        ({"response_format": {"type": "json_object"}}, "`response_format`"),
        ({"n": 2}, "`n` must be at most 1"),
        ({"frequency_penalty": 3}, "`frequency_penalty`"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "`text` only"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "`role`"),
        ({"messages": "hello"}, "`messages`"),
        ({"messages": [{"role": "user", "content": "hello " * 500}]}, "at most 127"),
        ({"unknown": 1}, "'unknown'"),
    ],
)
def test_what_chat_does_not_serve_is_refused_by_name(
    server: ServedModel, options: dict[str, Any], says: str
) -> None:
    answer = server.post({"messages": MESSAGES, "max_tokens": 2, **options}, path="/v1/chat/completions")
    assert answer.status_code == 422
    assert says in answer.json()["error"]


def test_the_openai_client_shows_the_servers_sentence(openai_client: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        openai_client.chat.completions.create(model="any", messages=MESSAGES, temperature=-1)
    assert "`temperature`" in str(refused.value.body)


def test_a_model_that_does_not_chat_says_so(serve_model: ServeModel, tiny_model: TinyModel) -> None:
    classifier = serve_model(tiny_model("classifier"), task="text-classification", runtime="onnx")
    with pytest.raises(HfHubHTTPError, match="404"):
        InferenceClient(classifier.url, token="hf_not_a_token").chat_completion(MESSAGES)
