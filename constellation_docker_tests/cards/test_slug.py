"""Names, slugs, versions and image tags."""

from __future__ import annotations

import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from constellation_docker.cards import image_tag_of, slug_of
from constellation_docker.cards.slug import MAX_SLUG_LENGTH, checked_model_name, checked_version

PART = st.from_regex(r"[A-Za-z0-9_]([\w.-]{0,94}[A-Za-z0-9_])?", fullmatch=True).filter(str.isascii)
NAMES = st.builds(lambda owner, name: f"{owner}/{name}" if owner else name, st.none() | PART, PART)
VERSIONS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}", fullmatch=True)


def is_model_name(name: str) -> bool:
    try:
        return checked_model_name(name) == name
    except ValueError:
        return False


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers-all-minilm-l6-v2"),
        ("gpt2", "gpt2"),
        ("Qwen/Qwen2.5-0.5B", "qwen-qwen2-5-0-5b"),
        ("balancer", "model-balancer"),
        ("7", "model-7"),
        ("0x7f", "model-0x7f"),
        ("_a_", "a"),
    ],
)
def test_a_name_has_one_safe_form(name: str, slug: str) -> None:
    assert slug_of(name) == slug


@given(NAMES)
def test_every_slug_is_safe_everywhere(name: str) -> None:
    assume(is_model_name(name))
    slug = slug_of(name)
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", slug)
    assert len(slug) <= MAX_SLUG_LENGTH
    assert not re.fullmatch(r"\d+|0x[0-9a-f]+", slug), "would be read as an IP address"
    assert slug_of(name) == slug


@given(st.text("ab", min_size=1, max_size=40), st.text("ab", min_size=1, max_size=40))
def test_long_names_with_one_beginning_stay_apart(one: str, other: str) -> None:
    assume(one != other)
    assert slug_of(f"{'x' * 50}/{one}") != slug_of(f"{'x' * 50}/{other}")


@given(VERSIONS)
def test_every_version_is_an_image_tag(version: str) -> None:
    assert re.fullmatch(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", image_tag_of(checked_version(version)))


def test_versions_that_differ_only_in_what_a_tag_cannot_hold_stay_apart() -> None:
    assert image_tag_of("1.0") == "1.0"
    assert len({image_tag_of("1+a"), image_tag_of("1_a"), image_tag_of("1+_a"), image_tag_of("1_+a")}) == 4
