"""Train the sentiment example and write it to `examples/sentiment` as a Hugging Face repository.

    python -m examples.train_sentiment [--destination examples/sentiment] [--seed 7]

Takes about two minutes on one core. The same seed on the same versions of torch and tokenizers gives the same
files. Needs the `ml` extra.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from examples.sentiment_card import Measurement, render_card
from examples.sentiment_text.sentences import LABELS, generated, handwritten, held_out

HERE = Path(__file__).parent
SPECIAL_TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
MAX_TOKENS = 128
VOCABULARY = 2_600
TRAINING_SENTENCES = 120_000
HELD_OUT_SENTENCES = 4_000
EPOCHS = 4
BATCH = 64
LEARNING_RATE = 2.5e-3
ONNX_TOLERANCE = 1e-4

Labelled = Sequence[tuple[str, int]]


@dataclass(frozen=True)
class Batch:
    """Token ids and attention mask of shape (sentences, tokens), labels of shape (sentences,)."""

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor


def train_tokenizer(texts: Iterable[str]) -> Tokenizer:
    """A lower-casing WordPiece tokenizer, as BERT's; every character of English is a piece, so nothing typed in
    English becomes [UNK]."""
    alphabet = [*"abcdefghijklmnopqrstuvwxyz0123456789", *"""!"#$%&'()*+,-./:;<=>?@[]^_{|}~"""]
    # The trainer breaks ties by the ids of pieces and numbers those inside words in an order that differs from run
    # to run, except special ones: so every letter inside a word is named beforehand, and the tokenizer is made anew
    # from the vocabulary, in which such pieces are nothing special.
    inner_letters = [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz0123456789"]
    learner = _plain_tokenizer(models.WordPiece(unk_token="[UNK]"))
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[*SPECIAL_TOKENS, *inner_letters],
        initial_alphabet=alphabet,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    tokenizer = _plain_tokenizer(models.WordPiece(learner.get_vocab(), unk_token="[UNK]"))
    tokenizer.add_special_tokens(SPECIAL_TOKENS)
    cls, sep = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", cls), ("[SEP]", sep)],
    )
    tokenizer.enable_truncation(MAX_TOKENS)
    return tokenizer


def _plain_tokenizer(model: models.WordPiece) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace("’", "'"), normalizers.BertNormalizer(lowercase=True)]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def batches(tokenizer: Tokenizer, labelled: Labelled, *, generator: torch.Generator | None) -> list[Batch]:
    """Batches of sentences of like length (little padding), in random order where a generator is given."""
    encoded = tokenizer.encode_batch([text for text, _ in labelled])
    order = sorted(range(len(labelled)), key=lambda i: (len(encoded[i].ids), i))
    chunks = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    if generator is not None:
        chunks = [chunks[i] for i in torch.randperm(len(chunks), generator=generator).tolist()]
    made = []
    for chunk in chunks:
        width = max(len(encoded[i].ids) for i in chunk)
        ids = torch.zeros(len(chunk), width, dtype=torch.long)
        mask = torch.zeros(len(chunk), width, dtype=torch.long)
        for row, i in enumerate(chunk):
            length = len(encoded[i].ids)
            ids[row, :length] = torch.tensor(encoded[i].ids)
            mask[row, :length] = 1
        made.append(Batch(ids, mask, torch.tensor([labelled[i][1] for i in chunk])))
    return made


def new_model(tokenizer: Tokenizer) -> BertForSequenceClassification:
    """A BERT of two layers with random weights."""
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=tokenizer.get_vocab_size(),
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            max_position_embeddings=MAX_TOKENS,
            hidden_dropout_prob=0.02,
            attention_probs_dropout_prob=0.0,
            id2label=dict(enumerate(LABELS)),
            label2id={label: i for i, label in enumerate(LABELS)},
        )
    )


def train(model: BertForSequenceClassification, tokenizer: Tokenizer, labelled: Labelled, seed: int) -> None:
    """AdamW with a one-cycle learning rate; label smoothing keeps the scores from all being 1.000."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    steps = EPOCHS * -(-len(labelled) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    model.train()
    for epoch in range(EPOCHS):
        total = 0.0
        made = batches(tokenizer, labelled, generator=generator)
        for batch in made:
            logits = model(input_ids=batch.ids, attention_mask=batch.mask).logits
            loss = torch.nn.functional.cross_entropy(logits, batch.labels, label_smoothing=0.02)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1}/{EPOCHS}: loss {total / len(made):.4f}", flush=True)
    model.eval()


def accuracy(
    model: BertForSequenceClassification, tokenizer: Tokenizer, labelled: Labelled
) -> tuple[float, float]:
    """Accuracy and F1 of the positive label."""
    hits = true_positive = said_positive = 0
    positive = sum(label for _, label in labelled)
    with torch.inference_mode():
        for batch in batches(tokenizer, labelled, generator=None):
            said = model(input_ids=batch.ids, attention_mask=batch.mask).logits.argmax(-1)
            hits += int((said == batch.labels).sum())
            said_positive += int(said.sum())
            true_positive += int((said & batch.labels).sum())
    return hits / len(labelled), 2 * true_positive / (said_positive + positive)


def mistakes(
    model: BertForSequenceClassification, tokenizer: Tokenizer, labelled: Labelled
) -> list[tuple[str, int]]:
    """The sentences that the model gets wrong, with their right label."""
    with torch.inference_mode():
        return [
            (text, label)
            for text, label in labelled
            if int(model(torch.tensor([tokenizer.encode(text).ids])).logits.argmax()) != label
        ]


def export_onnx(model: BertForSequenceClassification, destination: Path) -> None:
    """Write the model as one ONNX file whose batch and sequence lengths are free.

    Raises:
        AssertionError: The file's logits differ from torch's by more than `ONNX_TOLERANCE`.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    ids = torch.randint(5, 100, (2, 9))
    mask = torch.ones_like(ids)
    free = {
        0: torch.export.Dim("batch", min=1, max=4096),
        1: torch.export.Dim("sequence", min=2, max=MAX_TOKENS),
    }
    torch.onnx.export(
        model,
        kwargs={"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)},
        f=str(destination),
        input_names=["input_ids", "attention_mask", "token_type_ids"],
        output_names=["logits"],
        dynamic_shapes={"input_ids": free, "attention_mask": free, "token_type_ids": free},
        dynamo=True,
        external_data=False,
        optimize=True,
        verbose=False,
    )
    exported = onnx.load(str(destination))
    # Stack traces of the exporter name this machine's paths and double the file; the graph does not need them.
    for node in exported.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in [
        *exported.graph.value_info,
        *exported.graph.input,
        *exported.graph.output,
        *exported.graph.initializer,
    ]:
        del value.metadata_props[:]
    del exported.graph.value_info[:]
    del exported.metadata_props[:]
    del exported.graph.metadata_props[:]
    onnx.checker.check_model(exported)
    destination.write_bytes(exported.SerializeToString(deterministic=True))
    session = onnxruntime.InferenceSession(str(destination), providers=["CPUExecutionProvider"])
    for batch, width in ((1, 2), (3, 17), (8, MAX_TOKENS)):
        ids = torch.randint(5, 100, (batch, width))
        mask = torch.ones_like(ids)
        mask[-1, width // 2 + 1 :] = 0
        feed = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
        (logits,) = session.run(["logits"], {name: tensor.numpy() for name, tensor in feed.items()})
        with torch.inference_mode():
            deviation = (torch.from_numpy(logits) - model(**feed).logits).abs().max().item()
        assert deviation < ONNX_TOLERANCE, f"ONNX deviates by {deviation} at batch {batch}, width {width}"


def save_repository(model: BertForSequenceClassification, tokenizer: Tokenizer, destination: Path) -> None:
    """Write configuration, weights and tokenizer as `from_pretrained` reads them."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=MAX_TOKENS,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
    )
    fast.save_pretrained(destination)
    # transformers 5 writes its own class name there, which version 4 cannot load; both know this one.
    settings = destination / "tokenizer_config.json"
    described = json.loads(settings.read_text(encoding="utf-8")) | {
        "tokenizer_class": "PreTrainedTokenizerFast"
    }
    settings.write_text(_json(described), encoding="utf-8")
    (destination / "special_tokens_map.json").write_text(
        _json(dict(fast.special_tokens_map)), encoding="utf-8"
    )
    model.save_pretrained(destination)
    (destination / "model.safetensors").chmod(0o644)
    export_onnx(model, destination / "onnx" / "model.onnx")


def _json(value: object) -> str:
    return json.dumps(value, indent=2, sort_keys=True) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--destination", type=Path, default=HERE / "sentiment")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument(
        "--show-mistakes", action="store_true", help="print the wrong sentences of the tuning half"
    )
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    torch.use_deterministic_algorithms(True)
    started = time.monotonic()
    training = generated(arguments.seed, TRAINING_SENTENCES)
    seen = {text for text, _ in training}
    fresh = [pair for pair in generated(arguments.seed + 1, HELD_OUT_SENTENCES) if pair[0] not in seen]
    unseen_patterns = held_out(arguments.seed + 2, HELD_OUT_SENTENCES)
    tokenizer = train_tokenizer(text for text, _ in training)
    model = new_model(tokenizer)
    train(model, tokenizer, training, arguments.seed)
    measured = [
        Measurement(name, len(labelled), *accuracy(model, tokenizer, labelled))
        for name, labelled in (
            ("generated sentences", fresh),
            ("sentence patterns never trained on", unseen_patterns),
            ("hand-written sentences", handwritten("test")),
        )
    ]
    tuning = Measurement(
        "hand-written sentences, tuning half", 92, *accuracy(model, tokenizer, handwritten("tuning"))
    )
    for measurement in [*measured, tuning]:
        print(f"{measurement.name}: accuracy {measurement.accuracy:.4f}, F1 {measurement.f1:.4f}")
    if arguments.show_mistakes:
        for text, label in mistakes(model, tokenizer, handwritten("tuning")):
            print(f"  {LABELS[label]}: {text}")
    arguments.destination.mkdir(parents=True, exist_ok=True)
    save_repository(model, tokenizer, arguments.destination)
    (arguments.destination / "README.md").write_text(
        render_card(
            arguments.destination, measured, parameters=model.num_parameters(), trained_on=TRAINING_SENTENCES
        ),
        encoding="utf-8",
    )
    print(f"wrote {arguments.destination} in {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
