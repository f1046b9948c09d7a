"""Finds the terms of a glossary in text, also where they are misspelt or written with accents."""

import json
import re
from pathlib import Path
from typing import Any, NamedTuple

from anyascii import anyascii
from rapidfuzz import fuzz, process

WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
MAX_CHARACTERS = 20_000
MIN_FUZZY_CHARACTERS = 5  # shorter words have too many neighbours: "card" is one letter from "cart"
DEFAULT_THRESHOLD = 0.84
KNOWN_PARAMETERS = {"threshold", "ignore_labels", "aggregation_strategy", "stride"}


class InvalidRequest(ValueError):
    """The client's fault; the server answers with this status."""

    def __init__(self, message: str, status_code: int = 422) -> None:
        super().__init__(message)
        self.status_code = status_code


class Match(NamedTuple):
    """A span of the text, in characters, that stands for a term of a category."""

    start: int
    end: int
    score: float
    category: str
    term: str


class EndpointHandler:
    """Labels a text's support topics, as a token-classification model would.

    Args:
        path: The repository's directory; it holds `terms.json`: category → term → further spellings.
    """

    def __init__(self, path: str = "") -> None:
        glossary = json.loads((Path(path) / "terms.json").read_text(encoding="utf-8"))
        self._terms: dict[int, dict[str, tuple[str, str]]] = {}
        for category, terms in glossary.items():
            for term, spellings in terms.items():
                for spelling in (term, *spellings):
                    plain = _plain(spelling)
                    self._terms.setdefault(len(plain.split()), {})[plain] = (category, term)

    def __call__(self, data: dict[str, Any]) -> list[Any]:
        """`{"inputs": text or texts, "parameters": {"threshold": 0 to 1, "ignore_labels": […]}}` → spans.

        Returns:
            For each text a list of `{"entity_group", "score", "word", "start", "end", "term"}` in the text's order.

        Raises:
            InvalidRequest: The request is not of that form.
        """
        inputs = data.get("inputs")
        threshold, ignored = _read_parameters(data.get("parameters") or {})
        if isinstance(inputs, list):
            return [self._answer(text, threshold, ignored) for text in inputs]
        return self._answer(inputs, threshold, ignored)

    def _answer(self, text: Any, threshold: float, ignored: set[str]) -> list[dict[str, Any]]:
        if not isinstance(text, str):
            raise InvalidRequest("inputs must be a text or a list of texts.")
        if len(text) > MAX_CHARACTERS:
            raise InvalidRequest(f"A text may have at most {MAX_CHARACTERS} characters.", 413)
        return [
            {
                "entity_group": match.category,
                "score": round(match.score, 4),
                "word": text[match.start : match.end],
                "start": match.start,
                "end": match.end,
                "term": match.term,
            }
            for match in self._find(text, threshold)
            if match.category not in ignored
        ]

    def _find(self, text: str, threshold: float) -> list[Match]:
        words = [(found.start(), found.end(), _plain(found.group())) for found in WORD.finditer(text)]
        candidates = []
        for length, terms in self._terms.items():
            for first in range(len(words) - length + 1):
                window = words[first : first + length]
                if match := self._compare(window, terms, threshold):
                    candidates.append(match)
        chosen: list[Match] = []
        # The longest match first, so that "credit card" is not also "card"; of equally long ones the best.
        for match in sorted(candidates, key=lambda m: (m.start - m.end, -m.score, m.start)):
            if all(match.end <= other.start or match.start >= other.end for other in chosen):
                chosen.append(match)
        return sorted(chosen)

    def _compare(
        self, window: list[tuple[int, int, str]], terms: dict[str, tuple[str, str]], threshold: float
    ) -> Match | None:
        phrase = " ".join(plain for _, _, plain in window)
        best, score = phrase, 1.0
        if phrase not in terms:
            if len(phrase) < MIN_FUZZY_CHARACTERS:
                return None
            long_terms = (term for term in terms if len(term) >= MIN_FUZZY_CHARACTERS)
            similar = process.extractOne(phrase, long_terms, scorer=fuzz.ratio, score_cutoff=100 * threshold)
            if similar is None:
                return None
            best, score = similar[0], similar[1] / 100
        category, term = terms[best]
        return Match(window[0][0], window[-1][1], score, category, term)


def _plain(text: str) -> str:
    """Lower case, Latin letters without accents, single spaces."""
    return " ".join(anyascii(text).lower().split())


def _read_parameters(parameters: Any) -> tuple[float, set[str]]:
    if not isinstance(parameters, dict):
        raise InvalidRequest("parameters must be an object.")
    if unknown := sorted(set(parameters) - KNOWN_PARAMETERS):
        raise InvalidRequest(f"Unknown parameters: {', '.join(unknown)}.")
    threshold = parameters.get("threshold", DEFAULT_THRESHOLD)
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 < threshold <= 1:
        raise InvalidRequest("threshold must be a number above 0 and up to 1.")
    ignored = parameters.get("ignore_labels") or []
    if not isinstance(ignored, list) or not all(isinstance(label, str) for label in ignored):
        raise InvalidRequest("ignore_labels must be a list of texts.")
    return float(threshold), set(ignored)
