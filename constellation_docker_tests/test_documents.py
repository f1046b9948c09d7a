"""What the documents say is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from constellation_docker.gateway import dagster_operations
from deploy.configuration_page import render_page

ROOT = Path(__file__).resolve().parent.parent


def test_the_configuration_page_is_made_from_the_settings() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert page == render_page(), "run `make docs`"


@pytest.mark.parametrize(
    "operation", ["ADD_PARTITION", "LAUNCH", "ADD_AND_LAUNCH", "RUN", "RUNS", "LOGS", "TERMINATE"]
)
def test_the_graphql_page_holds_the_operations_that_the_client_sends(operation: str) -> None:
    page = (ROOT / "docs" / "graphql.md").read_text(encoding="utf-8")
    assert getattr(dagster_operations, operation).strip() in page


def test_the_graphql_page_shows_how_several_selections_go_in_one_query() -> None:
    page = (ROOT / "docs" / "graphql.md").read_text(encoding="utf-8")
    assert dagster_operations.render_several_runs(2).strip() in page


def test_the_task_schemas_are_what_the_tasks_say() -> None:
    # Imported here: it brings torch along.
    from deploy.task_schemas import render_task_schemas

    path = ROOT / "constellation_docker" / "gateway" / "task_schemas.json"
    assert path.read_text(encoding="utf-8") == render_task_schemas(), "run `make docs`"


def test_both_dagster_configurations_differ_only_in_storage() -> None:
    plain = yaml.safe_load((ROOT / "dagster.yaml").read_text(encoding="utf-8"))
    postgres = yaml.safe_load((ROOT / "deploy" / "dagster.postgres.yaml").read_text(encoding="utf-8"))
    assert postgres.pop("storage") == {"postgres": {"postgres_url": {"env": "DAGSTER_PG_URL"}}}
    assert postgres == plain


@pytest.mark.parametrize(
    "page", [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md"], ids=lambda path: path.name
)
def test_every_relative_link_leads_to_a_file(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
