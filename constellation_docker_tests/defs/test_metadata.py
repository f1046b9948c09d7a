"""What a person reads on an asset's page."""

from __future__ import annotations

import dagster as dg

from constellation_docker.cards import ModelCard
from constellation_docker.defs import metadata

CARD = ModelCard.from_registration(
    {
        "model_name": "acme/sentiment",
        "model_version": "1.0.0",
        "repo_url": "https://git.example.org/acme/sentiment",
        "branch": None,
        "model_card": {"description": "Says how a sentence feels.", "data_used": "", "license": "mit"},
    }
)


def test_a_card_is_shown_with_its_prose_first_and_its_front_matter_as_yaml() -> None:
    page = str(metadata.card_page(CARD.render(None)).value)
    prose, _, front_matter = page.partition("Front matter:")
    assert not page.startswith("---"), "the UI would draw a line and one paragraph of all the fields"
    assert "Says how a sentence feels." in prose
    assert front_matter.strip().startswith("```yaml\n")
    assert "license: mit" in front_matter


def test_a_table_without_rows_is_a_word_and_a_long_one_says_what_it_leaves_out() -> None:
    assert metadata.table([]) == dg.MetadataValue.text("none")
    shown = metadata.table([{"n": number} for number in range(metadata.MOST_TABLE_ROWS + 5)])
    assert isinstance(shown, dg.TableMetadataValue)
    assert shown.records[-1].data["n"] == "… and 5 more"
