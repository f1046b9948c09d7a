"""Deleting models and versions by the real job: what is theirs goes, what is anybody else's stays."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import create_engine, text

from constellation_docker.cards import InvalidRow, ModelRow
from constellation_docker.defs import deletion
from constellation_docker.errors import InvalidInput
from constellation_docker_tests.fixtures.deployer import Deployer


def versions_on_the_board(deployer: Deployer) -> list[str]:
    return sorted(deployer.instance.get_dynamic_partitions("model_versions"))


def image_of(deployer: Deployer, row: ModelRow) -> bool:
    """Whether the version's image is on the engine."""
    assert row.publication is not None
    return deployer.engine.image(row.publication.image) is not None


def test_deleting_one_version_keeps_another_and_what_somebody_built_upon_it(deployer: Deployer) -> None:
    first, second = deployer.publish("acme/tiny", "1"), deployer.publish("acme/tiny", "2")
    deployer.instance.add_dynamic_partitions("model_versions", [first.key, second.key])
    theirs = deployer.build(first, upon=deployer.tag_of(first), tag=f"{deployer.projects['dev']}/theirs:1")
    assert deployer.deploy("acme/tiny", version="2").success

    assert deployer.delete(model="acme/tiny", version="1").success
    assert not image_of(deployer, first)
    assert deployer.engine.image(theirs) is not None
    assert versions_on_the_board(deployer) == [second.key]
    assert deployer.running("acme/tiny") == ["2"]
    assert image_of(deployer, second)

    assert deployer.delete(model_id=second.model_id).success
    assert deployer.running("acme/tiny") == []
    assert not image_of(deployer, second)
    assert deployer.engine.image(theirs) is not None
    assert versions_on_the_board(deployer) == deployer.instance.get_dynamic_partitions("models") == []
    assert deployer.wishes() == deployer.drifts() == []


def test_a_deletion_that_failed_is_launched_again_and_ends_right(
    deployer: Deployer, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = deployer.publish("acme/tiny")
    assert deployer.deploy("acme/tiny").success

    def fail(*_: object) -> None:
        raise InvalidInput("the disk is on fire", remedy="Put it out.")

    with monkeypatch.context() as patch:
        patch.setattr(deletion, "remove_unused_images", fail)
        assert not deployer.delete(model="acme/tiny").success
    assert deployer.store.get(row.model_id).deleted_at is None
    for _ in range(2):
        assert deployer.delete(model="acme/tiny").success
        assert deployer.store.get(row.model_id).deleted_at is not None
        assert not image_of(deployer, row)


def test_rows_that_cannot_be_used_are_told_and_what_bears_their_name_goes(
    deployer: Deployer,
) -> None:
    deployer.publish("acme/tiny")
    assert deployer.deploy("acme/tiny").success
    card = json.dumps({"descripton": "misspelt"})
    with create_engine(deployer.store.address).begin() as connection:
        connection.execute(
            text(
                "INSERT INTO model_cards (model_name, model_version, repo_url, card) "
                "VALUES ('acme/tiny', '2', 'https://git.example/tiny', :card)"
            ),
            {"card": card},
        )
        connection.execute(text("UPDATE deployments SET resources = '{\"memroy\": 1}'"))

    result = deployer.delete(model="acme/tiny")
    assert result.success
    assert deployer.running("acme/tiny") == []
    left = deployer.store.list_models(include_deleted=True)
    assert [row.deleted_at is None for row in left] == [False, False]
    assert [type(row) for row in left] == [ModelRow, InvalidRow]
    assert deployer.store.wanted("dev") == []
    told = "\n".join(
        entry.user_message for entry in deployer.instance.all_logs(result.run_id) if entry.level == 30
    )
    assert "acme/tiny@2 cannot be used" in told and "dev|acme/tiny cannot be used" in told
