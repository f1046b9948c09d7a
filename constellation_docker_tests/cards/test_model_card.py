"""What a model card accepts, refuses and keeps."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constellation_docker.cards import InvalidCard, ModelCard
from constellation_docker.cards.tasks import KNOWN_TASKS
from constellation_docker_tests.cards.conftest import make_card, registration


def refusal(**changes: Any) -> InvalidCard:
    """The error with which a changed registration is refused."""
    with pytest.raises(InvalidCard) as caught:
        make_card(**changes)
    return caught.value


def test_the_rest_body_fits_without_loss() -> None:
    body = registration(card={"dependencies": ["numpy>=2", "rapidfuzz==3.9.*; python_version >= '3.11'"]})
    assert ModelCard.from_registration(body).to_registration() == body


WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=8,
)
LINES = st.from_regex(r"[^\s\x00][^\n\r\x00]{0,20}[^\s\x00]", fullmatch=True).filter(
    lambda text: text.isprintable()
)
CARDS = st.fixed_dictionaries(
    {
        "description": WORDS,
        "data_used": WORDS,
        "dependencies": st.lists(st.sampled_from(["numpy", "torch>=2,<3", "a[b]==1.*"]), max_size=3),
    },
    optional={
        "pipeline_tag": st.sampled_from(
            [task for task in KNOWN_TASKS if "text" in task and "shot" not in task]
        ),
        "license": LINES,
        "language": st.lists(st.sampled_from(["en", "no", "pt-BR"]), max_size=3),
        "tags": st.lists(LINES, max_size=3),
        "widget": st.lists(
            st.fixed_dictionaries(
                {"inputs": JSON}, optional={"parameters": st.dictionaries(WORDS, JSON, max_size=2)}
            ),
            max_size=2,
        ),
        "constellation": st.fixed_dictionaries(
            {"port": st.integers(1, 65535)},
            optional={
                "replicas": st.integers(1, 9),
                "env": st.dictionaries(st.from_regex(r"V_[A-Z0-9]{1,5}", fullmatch=True), LINES, max_size=2),
                "resources": st.fixed_dictionaries({"memory": st.sampled_from(["512m", "2g"])}),
            },
        ),
        "front_matter": st.dictionaries(LINES.map(lambda text: f"x_{text}"), JSON, min_size=1, max_size=3),
        "body": WORDS.map(lambda text: f"# {text.strip()}.").map(lambda text: " ".join(text.split())),
    },
)
BODIES = st.builds(
    lambda name, version, branch, card: {
        "model_name": name,
        "model_version": version,
        "repo_url": "hf://acme/x",
        "branch": branch,
        "model_card": card,
    },
    st.sampled_from(["acme/sentiment", "x", "Org_1/Model.v2"]),
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,10}", fullmatch=True),
    st.none() | st.sampled_from(["main", "v1.0", "feature/x"]),
    CARDS,
)


@settings(max_examples=150, deadline=None)
@given(BODIES)
def test_whatever_a_registration_gives_comes_back_from_it_from_a_row_and_from_the_rendered_card(
    body: dict[str, Any],
) -> None:
    card = ModelCard.from_registration(body)
    assert card.to_registration() == body
    row = json.loads(json.dumps(body))
    assert (
        ModelCard.from_row(**{key: row[key] for key in row if key != "model_card"}, card=row["model_card"])
        == card
    )
    rendered = ModelCard.from_readme(card.render({"image": "a|b\n```"}))
    assert rendered.to_registration() == card.to_registration()


def test_what_the_writer_left_to_us_is_not_written_down_as_theirs() -> None:
    card = make_card()
    assert card.serving.port == 8080
    assert "constellation" not in card.to_registration()["model_card"]
    assert make_card(card={"constellation": {"port": 8080}}).digest != card.digest


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_nam": "x"}, "model_nam: unknown field; did you mean model_name?"),
        ({"license": "mit"}, "license: unknown field; it belongs inside model_card"),
        ({"card": {"repo_url": "x"}}, "model_card.repo_url: unknown field; it belongs beside model_card"),
        ({"card": {"licence": "mit"}}, "model_card.licence: unknown field; did you mean license?"),
        ({"card": {"x_custom": 1}}, "other Hugging Face metadata goes into front_matter"),
        ({"card": {"constelation": {}}}, "did you mean constellation?"),
        (
            {"card": {"constellation": {"resorces": {}}}},
            "constellation: unknown field 'resorces'; did you mean resources?",
        ),
        (
            {"card": {"constellation": {"resources": {"memry": "1g"}}}},
            "unknown field 'memry'; did you mean memory?",
        ),
        ({"card": {"front_matter": {"license": "mit"}}}, "front_matter.license must be given as license"),
    ],
)
def test_an_unknown_field_is_refused_with_the_nearest_known_one(changes: dict[str, Any], words: str) -> None:
    error = refusal(**changes)
    assert words in error.message
    assert "acme/sentiment@1.0.0" in error.message


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"model_version": 1.0}, "model_version", "must be text (in YAML"),
        ({"model_version": ""}, "model_version", "1 to 64 letters"),
        ({"model_version": "1|2"}, "model_version", "1 to 64 letters"),
        ({"model_version": "a" * 65}, "model_version", "1 to 64 letters"),
        ({"repo_url": ""}, "repo_url", "must be a repository address"),
        ({"repo_url": "--upload-pack=evil"}, "repo_url", "must not begin with '-'"),
        ({"repo_url": "ext::sh -c evil"}, "repo_url", "without spaces"),
        ({"repo_url": "ext::evil"}, "repo_url", "remote helper"),
        ({"branch": "-evil"}, "branch", "branch, tag or commit"),
        ({"branch": "a..b"}, "branch", "branch, tag or commit"),
        ({"card": {"license": 3}}, "license", "must be text"),
        ({"card": {"language": False}}, "language", "must be a list"),
        ({"card": {"language": {}}}, "language", "must be a list"),
        ({"card": {"tags": [2024]}}, "tags.0", "must be text"),
        ({"card": {"dependencies": "numpy"}}, "dependencies", "must be a list"),
        ({"card": {"dependencies": ["numpy 2"]}}, "dependencies.0", "is not a requirement"),
        ({"card": {"dependencies": ["-r other.txt"]}}, "dependencies.0", "is not a requirement"),
        ({"card": {"pipeline_tag": "not-a-task"}}, "pipeline_tag", "is not a known task"),
        (
            {"card": {"pipeline_tag": "text-classificaton"}},
            "pipeline_tag",
            "did you mean text-classification?",
        ),
        ({"card": {"constellation": {"port": 0}}}, "constellation.port", "greater than or equal to 1"),
        ({"card": {"constellation": {"port": True}}}, "constellation.port", "whole number"),
        (
            {"card": {"constellation": {"health_path": "health"}}},
            "constellation.health_path",
            "begins with '/'",
        ),
        ({"card": {"constellation": {"python": 3.11}}}, "constellation.python", "must be text"),
        (
            {"card": {"constellation": {"resources": {"memory": "lots"}}}},
            "constellation.resources.memory",
            "512m",
        ),
        (
            {"card": {"constellation": {"deploy": {"drain_timeout": 30}}}},
            "constellation.deploy.drain_timeout",
            "must be text",
        ),
        (
            {"card": {"constellation": {"deploy": {"drain_timeout": "30"}}}},
            "constellation.deploy.drain_timeout",
            "30s",
        ),
        (
            {"card": {"constellation": {"env": {"A B": "x"}}}},
            "constellation.env.A B.[key]",
            "environment variable",
        ),
        ({"card": {"constellation": {"env": {"A": 1}}}}, "constellation.env.A", "must be text"),
        ({"card": {"constellation": {"runtime": "image"}}}, "constellation", "needs the field image"),
        ({"card": {"constellation": {"image": "x"}}}, "constellation", "only for runtime image"),
        ({"card": {"description": "a\x00b"}}, "the card", "holds a NUL character"),
        ({"card": {"description": "a\ud800b"}}, "the card", "unpaired surrogate"),
        ({"card": {"front_matter": {"a": float("nan")}}}, "the card", "JSON has no way to write"),
        (
            {"card": {"front_matter": {"model-index": [{"results": 1}]}}},
            "the card",
            "model-index is malformed",
        ),
    ],
)
def test_a_wrong_value_is_refused_by_its_field(changes: dict[str, Any], field: str, words: str) -> None:
    problems = refusal(**changes).details["problems"]
    assert any(problem["field"] == field and words in problem["problem"] for problem in problems), problems


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a b",
        "a|b",
        "a@b",
        "a/b/c",
        "/a",
        "a/",
        "-a",
        "a-",
        ".a",
        "a..b",
        "a--b",
        "a.git",
        "a\n",
        "ä",
        "_",
        "a" * 97,
    ],
)
def test_a_name_that_could_not_name_a_model_is_refused(name: str) -> None:
    assert refusal(model_name=name).details["problems"][0]["field"] == "model_name"


@pytest.mark.parametrize(
    "card",
    [
        {"constellation": {"secrets": {"HF_TOKEN": "hunter2-is-the-secret"}}},
        {"constellation": {"env": {"HF_TOKEN": "hunter2-is-the-secret"}}},
        {"dependencies": ["x @ https://me:hunter2-is-the-secret@git.example/x.whl"]},
    ],
)
def test_a_secret_in_a_card_is_refused_and_not_repeated(card: dict[str, Any]) -> None:
    error = refusal(card=card)
    assert "reference" in error.message
    assert "hunter2" not in f"{error} {error.details}"
    error = refusal(repo_url="https://me:hunter2@git.example/x")
    assert "hunter2" not in f"{error} {error.details}"


def test_every_problem_is_told_at_once() -> None:
    error = refusal(model_version=1, card={"license": 3, "constellation": {"port": "x", "replicas": 0}})
    assert {problem["field"] for problem in error.details["problems"]} == {
        "model_version",
        "license",
        "constellation.port",
        "constellation.replicas",
    }
    assert "(and 3 more)" in error.message


@pytest.mark.parametrize("body", [None, [], "x", 3, {"model_card": 3}, {"model_card": []}, {}])
def test_what_is_not_a_registration_is_refused(body: Any) -> None:
    with pytest.raises(InvalidCard):
        ModelCard.from_registration(body)


def test_a_value_nested_without_end_is_refused() -> None:
    nested: list[Any] = []
    for _ in range(5000):
        nested = [nested]
    assert "nested" in refusal(card={"front_matter": {"x": nested}}).message


def test_one_text_is_accepted_where_the_hub_accepts_one() -> None:
    card = make_card(
        card={"language": "en", "base_model": "bert-base-uncased", "license": ["mit", "apache-2.0"]}
    )
    assert card.language == ("en",)
    assert card.base_model == ("bert-base-uncased",)
    assert card.license == "mit AND apache-2.0"


def test_null_means_not_given() -> None:
    assert make_card(branch=None, card={"pipeline_tag": None, "tags": None}) == make_card(branch=None)


def test_a_server_of_ones_own_is_ready_where_it_is_healthy_unless_it_says_otherwise() -> None:
    def ready_path(**serving: Any) -> str:
        return make_card(card={"constellation": serving}).serving.ready_path

    assert ready_path() == "/ready"
    assert ready_path(runtime="dockerfile", health_path="/alive") == "/alive"
    assert ready_path(runtime="image", image="a/b", health_path="/alive", ready_path="/up") == "/up"


def test_a_card_says_where_it_serves_only_if_its_writer_did() -> None:
    assert not make_card().serving.declares_endpoint
    assert make_card(
        card={"constellation": {"port": 8080, "health_path": "/health"}}
    ).serving.declares_endpoint


def test_reservations_stay_within_limits() -> None:
    resources = {"memory": "1g", "reservations": {"memory": "2g"}}
    assert "more memory is reserved" in refusal(card={"constellation": {"resources": resources}}).message
