"""Cards from files, as people write them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from constellation_docker.cards import InvalidCard, ModelCard
from constellation_docker.errors import InvalidInput
from constellation_docker_tests.cards.conftest import registration

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

YAML = """
model_name: acme/sentiment
model_version: "1.10"
repo_url: .
model_card:
  description: |
    Says how a sentence feels.
  language: no
"""


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_yaml_and_json_files_have_the_form_of_the_rest_body(tmp_path: Path) -> None:
    from_json = ModelCard.from_file(write(tmp_path / "card.json", json.dumps(registration())))
    assert from_json == ModelCard.from_registration(registration())
    from_yaml = ModelCard.from_file(write(tmp_path / "card.yaml", "\ufeff" + YAML))
    assert (from_yaml.model_version, from_yaml.language) == ("1.10", ("no",))


def test_a_relative_repository_lies_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "cards").mkdir()
    card = ModelCard.from_file(
        write(tmp_path / "cards" / "card.yaml", YAML.replace("repo_url: .", "repo_url: ../model"))
    )
    assert card.repo_url == (tmp_path / "model").as_uri()


def test_a_readme_describes_its_own_directory_and_takes_its_name_from_the_caller(tmp_path: Path) -> None:
    write(tmp_path / "README.md", "---\nlicense: mit\nmodel_name: A free title\n---\n# Body\n")
    card = ModelCard.from_file(tmp_path, model_name="acme/x", model_version="2", branch="v2")
    assert (card.key, card.repo_url, card.branch) == ("acme/x@2", tmp_path.as_uri(), "v2")
    assert card.front_matter == {"model_name": "A free title"}
    with pytest.raises(InvalidCard, match=r"README\.md.*model_name.*--name"):
        ModelCard.from_file(tmp_path)


def test_a_readme_may_say_its_name_itself(tmp_path: Path) -> None:
    block = "constellation: {model_name: acme/x, model_version: '2', repo_url: hf://acme/x, replicas: 3}"
    card = ModelCard.from_file(write(tmp_path / "README.md", f"---\n{block}\n---\n"))
    assert (card.key, card.repo_url, card.serving.replicas) == ("acme/x@2", "hf://acme/x", 3)


def test_a_card_file_goes_before_the_readme_of_its_directory(tmp_path: Path) -> None:
    write(tmp_path / "README.md", "# Body")
    write(tmp_path / "model-card.yaml", YAML)
    assert ModelCard.from_file(tmp_path).model_version == "1.10"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("card.json", '{"model_name": "a", "model_name": "b"}', "given twice"),
        ("card.json", "{", "cannot be read"),
        ("card.json", '{"model_card": NaN}', "no way to write"),
        ("card.json", "[" * 100_000, "nested too deeply"),
        ("card.yaml", "model_name: [", "cannot be read"),
        ("card.yaml", "", "mapping of names"),
        ("card.yaml", "- a", "mapping of names"),
        ("card.yaml", YAML.replace('"1.10"', "1.10"), "in quotes"),
        ("card.yaml", YAML + "  licence: mit\n", "did you mean license"),
    ],
)
def test_a_file_that_is_no_card_is_refused_by_its_name(
    tmp_path: Path, name: str, text: str, words: str
) -> None:
    with pytest.raises(InvalidCard, match="card") as caught:
        ModelCard.from_file(write(tmp_path / name, text))
    assert words in str(caught.value)


def test_what_is_no_file_of_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"description: caf\xe9")
    with pytest.raises(InvalidCard, match="not UTF-8"):
        ModelCard.from_file(tmp_path / "latin.yaml")
    (tmp_path / "huge.json").write_bytes(b" " * 5_000_000)
    with pytest.raises(InvalidCard, match="too large"):
        ModelCard.from_file(tmp_path / "huge.json")
    for path, words in [
        ("none.yaml", "no file"),
        (".", "holds no model card"),
        ("x.txt", "not a model card"),
    ]:
        write(tmp_path / "x.txt", "")
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(InvalidInput, match=words):
            ModelCard.from_file(tmp_path / "empty" if path == "." else tmp_path / path)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("cards/*")), ids=lambda path: path.name)
def test_the_examples_are_valid_together_with_their_repositories(path: Path) -> None:
    card = ModelCard.from_file(path)
    if card.repo_url.startswith("file://"):
        readme = Path(card.repo_url.removeprefix("file://")) / "README.md"
        assert card.merged_with(readme.read_text(encoding="utf-8")).task is not None
