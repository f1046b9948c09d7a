"""Sections of RESULTS.md are replaced one by one, and nothing else in it changes."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from benchmarks.results import HEAD, describe_machine, record_section, render_table, replace_section


def test_the_first_section_gets_a_head_above_it() -> None:
    assert replace_section("", "Packaging", "one") == f"{HEAD}\n## Packaging\n\none\n"


def test_a_new_section_comes_last() -> None:
    document = replace_section(replace_section("", "Packaging", "one"), "Serving", "two")
    assert document.index("## Packaging") < document.index("## Serving")


def test_a_section_is_replaced_where_it_stands() -> None:
    document = HEAD
    for title in ("A", "B", "C"):
        document = replace_section(document, title, f"old {title}\n\n### deeper\n\nmore")
    replaced = replace_section(document, "B", "new")
    assert "old B" not in replaced and replaced.count("### deeper") == 2
    assert replaced.index("## A") < replaced.index("## B\n\nnew\n") < replaced.index("## C")


def test_replacing_a_section_with_itself_changes_nothing() -> None:
    document = replace_section(replace_section("", "A", "one"), "B", "two")
    for title, body in (("A", "one"), ("B", "two")):
        assert replace_section(document, title, body) == document


def test_a_title_that_begins_like_another_is_another_section() -> None:
    document = replace_section(replace_section("", "Packaging", "first"), "Packaging, large", "second")
    replaced = replace_section(document, "Packaging", "third")
    assert "second" in replaced and "first" not in replaced


def test_a_section_is_written_to_its_file(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    record_section("A", "one", path=path)
    record_section("A", "two", path=path)
    assert path.read_text() == f"{HEAD}\n## A\n\ntwo\n"
    assert list(tmp_path.iterdir()) == [path]


def test_a_table_aligns_numbers_to_the_right() -> None:
    assert render_table(("what", "s"), [("a", 1)]) == "| what | s |\n| --- | ---: |\n| a | 1 |\n"


def test_the_machine_is_described_without_its_name() -> None:
    text = describe_machine("Docker Engine 1", now=datetime(2026, 1, 2, tzinfo=UTC))
    assert text.startswith("Measured 2026-01-02: ") and "Docker Engine 1" in text
