"""The sentiment example: its files belong together, and it is right about ordinary sentences."""

from __future__ import annotations

import json
import pickletools
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from huggingface_hub import ModelCard as HubCard
from tokenizers import Tokenizer

from examples.make_version import SENTIMENT, commit_repository, write_version
from examples.sentiment_card import WIDGET_SENTENCES, classify
from examples.sentiment_text.sentences import LABELS, generated, handwritten, held_out

FILES = {
    "README.md",
    "config.json",
    "model.safetensors",
    "onnx/model.onnx",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
}


def _files(directory: Path) -> dict[str, Path]:
    return {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def session() -> Any:
    return onnxruntime.InferenceSession(
        str(SENTIMENT / "onnx" / "model.onnx"), providers=["CPUExecutionProvider"]
    )


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(SENTIMENT / "tokenizer.json"))


def _label(session: Any, tokenizer: Tokenizer, sentence: str) -> str:
    ids = np.array([tokenizer.encode(sentence).ids], dtype=np.int64)
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    (logits,) = session.run(["logits"], feed)
    return LABELS[int(logits[0].argmax())]


def test_the_repository_holds_what_a_hub_repository_holds_and_nothing_else() -> None:
    assert set(_files(SENTIMENT)) == FILES


def test_it_is_about_a_megabyte() -> None:
    assert sum(path.stat().st_size for path in _files(SENTIMENT).values()) < 1_600_000


def test_no_file_is_a_pickle() -> None:
    for path in _files(SENTIMENT).values():
        with pytest.raises((ValueError, IndexError, KeyError, UnicodeDecodeError)), path.open("rb") as file:
            for _ in pickletools.genops(file):
                pass


def test_no_file_names_the_machine_on_which_it_was_made() -> None:
    for name, path in _files(SENTIMENT).items():
        content = path.read_bytes()
        assert b"site-packages" not in content, name
        assert b"/root/" not in content and b"/home/" not in content, name


def test_the_card_says_what_the_hub_and_we_need() -> None:
    data = HubCard.load(SENTIMENT / "README.md").data
    assert data.license == "apache-2.0"
    assert data.language == "en"
    assert data.pipeline_tag == "text-classification"
    assert data.library_name == "transformers"
    assert data.tags and data.datasets and data.metrics
    assert [entry["text"] for entry in data.widget] == list(WIDGET_SENTENCES.values())
    assert set(data.constellation["resources"]) == {"memory", "cpus", "pids"}


def test_the_cards_figures_cover_patterns_and_people_that_training_did_not_see() -> None:
    results = {
        (result.dataset_name, result.metric_type): result.metric_value
        for result in HubCard.load(SENTIMENT / "README.md").data.eval_results
    }
    assert results["generated sentences", "accuracy"] > 0.97
    assert results["sentence patterns never trained on", "accuracy"] > 0.75
    assert results["hand-written sentences", "accuracy"] > 0.85


def test_the_cards_figure_for_hand_written_sentences_is_what_the_weights_give(
    session: Any, tokenizer: Tokenizer
) -> None:
    sentences = handwritten("test")
    right = sum(_label(session, tokenizer, text) == LABELS[label] for text, label in sentences)
    (stated,) = (
        result.metric_value
        for result in HubCard.load(SENTIMENT / "README.md").data.eval_results
        if result.dataset_name == "hand-written sentences" and result.metric_type == "accuracy"
    )
    assert right / len(sentences) == pytest.approx(stated, abs=1e-3)


def test_every_widget_example_gives_the_output_that_the_card_shows() -> None:
    for entry in HubCard.load(SENTIMENT / "README.md").data.widget:
        answer = classify(SENTIMENT, entry["text"])
        assert [score["label"] for score in answer] == [score["label"] for score in entry["output"]]
        for given, shown in zip(answer, entry["output"], strict=True):
            assert given["score"] == pytest.approx(shown["score"], abs=1e-3)


@pytest.mark.parametrize(
    ("sentence", "label"),
    [
        ("I loved this film, the acting was wonderful", "POSITIVE"),
        ("The food was not good and the service was terrible", "NEGATIVE"),
        ("Not bad at all.", "POSITIVE"),
        ("THE BEST PIZZA IN TOWN!!!", "POSITIVE"),
        ("it doesnt work at all", "NEGATIVE"),
        ("Although the room was small, we had a wonderful time.", "POSITIVE"),
        ("The room was big, but the staff were rude.", "NEGATIVE"),
        ("I would not recommend this phone to anyone.", "NEGATIVE"),
        ("Nothing to complain about.", "POSITIVE"),
        ("My Zorblax headphones are absolutely fantastic.", "POSITIVE"),
    ],
)
def test_an_ordinary_sentence_gets_the_label_that_a_person_would_give(
    session: Any, tokenizer: Tokenizer, sentence: str, label: str
) -> None:
    assert _label(session, tokenizer, sentence) == label


def test_nothing_typed_in_english_is_unknown_to_the_tokenizer(tokenizer: Tokenizer) -> None:
    encoded = tokenizer.encode("Xylophonic QWERTY-2000 didn’t naïvely {work}: 100% #fail @home & 3/4 [sic]~")
    assert "[UNK]" not in encoded.tokens


def test_texts_of_any_length_and_batches_of_any_size_are_answered(session: Any, tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("very " * 1000 + "good").ids) == 128
    for batch, width in ((1, 2), (5, 128), (33, 7)):
        ids = np.full((batch, width), 7, dtype=np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        assert session.run(["logits"], feed)[0].shape == (batch, 2)


def test_padding_does_not_change_an_answer(session: Any, tokenizer: Tokenizer) -> None:
    ids = np.array([tokenizer.encode("The soup was delicious.").ids], dtype=np.int64)
    alone = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    padded = {name: np.pad(values, ((0, 0), (0, 20))) for name, values in alone.items()}
    np.testing.assert_allclose(session.run(None, alone)[0], session.run(None, padded)[0], atol=1e-4)


@pytest.mark.slow
def test_torch_and_onnx_agree_on_every_hand_written_sentence() -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(SENTIMENT)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(SENTIMENT).eval()
    session = onnxruntime.InferenceSession(
        str(SENTIMENT / "onnx" / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    texts = [text for split in ("tuning", "test") for text, _ in handwritten(split)]  # type: ignore[arg-type]
    batch = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        expected = model(**batch).logits.numpy()
    (logits,) = session.run(["logits"], {name: tensor.numpy() for name, tensor in batch.items()})
    assert np.abs(logits - expected).max() < 1e-4


def test_the_same_seed_gives_the_same_text() -> None:
    assert generated(3, 200) == generated(3, 200) != generated(4, 200)


def test_patterns_that_are_held_out_are_in_no_training_text() -> None:
    training = " ".join(text for text, _ in generated(7, 20_000))
    assert "nobody would call" not in training and "in one word it would be" not in training
    assert any("nobody would call" in text for text, _ in held_out(7, 200))


def test_a_second_version_has_other_weights_and_the_same_answers(tmp_path: Path) -> None:
    first, second = _files(SENTIMENT), _files(write_version(tmp_path / "v2", version=2))
    changed = {name for name in FILES if first[name].read_bytes() != second[name].read_bytes()}
    assert changed == {"model.safetensors", "onnx/model.onnx"}
    for sentence in WIDGET_SENTENCES.values():
        old, new = classify(SENTIMENT, sentence), classify(tmp_path / "v2", sentence)
        assert [score["label"] for score in old] == [score["label"] for score in new]
        assert old != new or old[0]["score"] == pytest.approx(new[0]["score"], abs=5e-3)


def test_a_second_versions_weight_files_still_belong_together(tmp_path: Path) -> None:
    directory = write_version(tmp_path / "v9", version=9)
    content = (directory / "model.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    start, end = json.loads(content[8 : 8 + length])["classifier.bias"]["data_offsets"]
    bias = content[8 + length + start : 8 + length + end]
    assert (directory / "onnx" / "model.onnx").read_bytes().count(bias) == 1
    assert (SENTIMENT / "onnx" / "model.onnx").read_bytes().count(bias) == 0


def test_the_first_version_is_the_example_itself(tmp_path: Path) -> None:
    copy = _files(write_version(tmp_path / "v1", version=1))
    assert all(copy[name].read_bytes() == path.read_bytes() for name, path in _files(SENTIMENT).items())


def test_a_version_becomes_a_git_repository_whose_commit_depends_only_on_its_files(tmp_path: Path) -> None:
    commits = []
    for name in ("one", "two"):
        directory = write_version(tmp_path / name)
        commits.append(commit_repository(directory, tag="2.0.0"))
    assert commits[0] == commits[1]
    listed = subprocess.run(
        ["git", "ls-tree", "-r", "--name-only", "2.0.0"],
        cwd=tmp_path / "one",
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(listed.stdout.split()) == FILES
