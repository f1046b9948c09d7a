"""Registering, correcting, publishing, removing and reading model versions, on both databases."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from constellation_docker.cards import (
    CardChanged,
    CardNotFound,
    CardStore,
    InvalidCard,
    InvalidRow,
    ModelIdTaken,
    ModelRow,
    SlugTaken,
    VersionPublished,
)
from constellation_docker.errors import InvalidInput
from constellation_docker_tests.cards.conftest import AnySql, make_card, make_publication


def keys(rows: list[ModelRow | InvalidRow]) -> list[str]:
    return [row.key for row in rows]


def test_a_card_comes_back_as_it_was_registered(store: CardStore) -> None:
    card = make_card(card={"tags": ["b", "a"], "front_matter": {"z": 1, "a": 1.50, "ø": "\u2028"}})
    row = store.add(card)
    assert row.card == card
    assert list(row.card.front_matter) == ["z", "a", "ø"], "the writer's order is kept"
    assert uuid.UUID(row.model_id).version == 4
    assert row.revision == 1
    assert abs(row.created_at - datetime.now(UTC)) < timedelta(minutes=1)
    assert store.get(row.model_id) == row == store.find("acme/sentiment", "1.0.0")


def test_registering_the_same_card_again_changes_nothing(store: CardStore) -> None:
    row = store.add(make_card())
    assert store.add(make_card()) == row


def test_an_unpublished_version_may_be_corrected(store: CardStore) -> None:
    row = store.add(make_card())
    corrected = store.add(make_card(branch="fix", card={"license": "mit"}))
    assert (corrected.model_id, corrected.revision, corrected.card.branch) == (row.model_id, 2, "fix")
    assert corrected.updated_at >= row.updated_at
    assert corrected.created_at == row.created_at
    assert store.correct(make_card()).revision == 3
    with pytest.raises(CardNotFound, match=r"acme/sentiment@2"):
        store.correct(make_card(model_version="2"))


def test_a_published_version_never_changes(store: CardStore, sql: AnySql) -> None:
    row = store.add(make_card())
    published = store.publish(row.model_id, make_publication(row.model_id))
    assert published.is_published
    assert published.revision == row.revision
    assert store.add(make_card()) == published
    with pytest.raises(VersionPublished) as caught:
        store.add(make_card(branch="other", card={"license": "mit", "constellation": {"port": 9000}}))
    assert caught.value.details["differs"] == ["branch", "constellation.port", "license"]
    with pytest.raises(Exception, match="never changes"):
        sql("UPDATE model_cards SET branch = 'other'")
    assert store.get(row.model_id) == published


def test_publishing_the_same_again_changes_nothing(store: CardStore) -> None:
    row = store.add(make_card())
    publication = make_publication(row.model_id)
    assert store.publish(row.model_id, publication) == store.publish(row.model_id, publication)
    again = store.publish(row.model_id, make_publication(row.model_id, image="sha256:other"))
    assert again.publication is not None
    assert again.publication.image == "sha256:other"
    assert again.published_at == publication.published_at


def test_what_was_packaged_from_a_former_revision_is_not_published(store: CardStore) -> None:
    row = store.add(make_card())
    store.add(make_card(branch="fix"))
    with pytest.raises(CardChanged, match="revision 2"):
        store.publish(row.model_id, make_publication(row.model_id), revision=row.revision)
    assert store.publish(row.model_id, make_publication(row.model_id), revision=2).is_published


def test_a_given_id_is_kept_and_belongs_to_one_version(store: CardStore) -> None:
    model_id = str(uuid.uuid4())
    assert store.add(make_card(), model_id=model_id.upper()).model_id == model_id
    assert store.add(make_card(), model_id=model_id).model_id == model_id
    with pytest.raises(ModelIdTaken, match="another model version"):
        store.add(make_card(model_version="2"), model_id=model_id)
    with pytest.raises(ModelIdTaken, match="registered already"):
        store.add(make_card(), model_id=str(uuid.uuid4()))
    with pytest.raises(InvalidInput, match="not a model_id"):
        store.add(make_card(model_version="2"), model_id="my-id")
    assert store.find("acme/sentiment", "2") is None


def test_what_is_not_there_is_not_found(store: CardStore) -> None:
    for nothing in (str(uuid.uuid4()), "no-uuid", ""):
        with pytest.raises(CardNotFound):
            store.get(nothing)
    for name in ("acme/none", "a\x00b", "\ud800"):
        assert store.find(name, "1") is None
    assert store.list_models(search="\x00") == []
    assert store.newest_published("acme/none") is None
    with pytest.raises(CardNotFound):
        store.remove(str(uuid.uuid4()))


def test_a_removed_version_is_hidden_and_keeps_its_name(store: CardStore) -> None:
    row = store.add(make_card())
    removed = store.remove(row.model_id)
    assert removed.deleted_at is not None
    assert store.remove(row.model_id) == removed
    assert store.list_models() == []
    assert keys(store.list_models(include_deleted=True)) == ["acme/sentiment@1.0.0"]
    assert store.get(row.model_id).deleted_at is not None
    with pytest.raises(CardNotFound):
        store.publish(row.model_id, make_publication(row.model_id))
    back = store.add(make_card())
    assert (back.model_id, back.deleted_at) == (row.model_id, None)
    assert back.revision > removed.revision, "it is packaged anew"


def test_a_published_version_that_was_removed_comes_back_only_as_it_was(store: CardStore) -> None:
    row = store.add(make_card())
    store.publish(row.model_id, make_publication(row.model_id))
    store.remove(row.model_id)
    with pytest.raises(VersionPublished):
        store.add(make_card(branch="other"))
    assert store.add(make_card()).is_published


def test_two_names_with_one_slug_are_refused(store: CardStore) -> None:
    row = store.add(make_card(model_name="acme/x.y"))
    with pytest.raises(
        SlugTaken, match=r"acme/x-y has the safe form acme-x-y, which belongs to acme/x\.y"
    ) as caught:
        store.add(make_card(model_name="acme/x-y"))
    assert caught.value.details["slug"] == "acme-x-y"
    assert keys(store.list_models(include_deleted=True)) == ["acme/x.y@1.0.0"]
    store.add(make_card(model_name="acme/x.y", model_version="2"))
    store.remove(row.model_id)
    with pytest.raises(SlugTaken):
        store.add(make_card(model_name="acme/x-y"))


def test_a_slug_is_free_again_when_nothing_of_its_holder_is_left(store: CardStore) -> None:
    row = store.add(make_card(model_name="acme/x.y"))
    store.want("dev", "acme/x.y", model_id=row.model_id)
    store.remove(row.model_id)
    with pytest.raises(SlugTaken):
        store.add(make_card(model_name="acme/x-y"))
    store.want("dev", "acme/x.y", model_id=row.model_id, state="deleted")
    assert store.add(make_card(model_name="acme/x-y")).revision == 1
    with pytest.raises(SlugTaken):
        store.add(make_card(model_name="acme/x.y"))


def test_lists_are_sorted_searched_and_paged(store: CardStore) -> None:
    for name, version in [("b/one", "2"), ("a/two", "10"), ("a/two", "2"), ("B/upper", "1")]:
        store.add(
            make_card(
                model_name=name, model_version=version, card={"description": f"Does 100%_{name} Things"}
            )
        )
    everything = ["B/upper@1", "a/two@10", "a/two@2", "b/one@2"]
    assert keys(store.list_models()) == everything
    first = store.list_models(limit=2)
    assert keys(first) + keys(store.list_models(after=first[-1].key)) == everything
    assert keys(store.list_models(search="UPPER")) == ["B/upper@1"]
    assert keys(store.list_models(search="%_b/ONE thing")) == ["b/one@2"]
    assert keys(store.list_models(search="10")) == everything
    assert store.list_models(search="100__") == []
    assert store.list_models(search="'; DROP TABLE model_cards") == []


def test_changes_are_read_once_and_in_order(store: CardStore) -> None:
    rows = [store.add(make_card(model_version=str(number))) for number in range(5)]
    seen: list[ModelRow | InvalidRow] = []
    since = None
    while page := store.changed_since(since, limit=2):
        seen += page
        since = (page[-1].updated_at, page[-1].model_id)
    assert sorted(keys(seen)) == sorted(row.key for row in rows)
    assert seen == sorted(seen, key=lambda row: (row.updated_at, row.model_id))
    last = seen[-1]
    assert last in store.changed_since(last.updated_at)
    store.add(make_card(model_version="0", branch="fix"))
    store.remove(rows[1].model_id)
    store.publish(rows[2].model_id, make_publication(rows[2].model_id))
    assert since is not None
    changed = {row.key: row for row in store.changed_since(since[0])}
    assert {"acme/sentiment@0", "acme/sentiment@1", "acme/sentiment@2"} <= set(changed)
    assert changed["acme/sentiment@1"].deleted_at is not None


def test_the_newest_published_version_is_the_one_that_was_published_last(store: CardStore) -> None:
    rows = {version: store.add(make_card(model_version=version)) for version in ("2", "10", "1", "3")}
    for version in ("2", "10", "1"):
        store.publish(rows[version].model_id, make_publication(rows[version].model_id))
    newest = store.newest_published("acme/sentiment")
    assert newest is not None
    assert newest.card.model_version == "1"
    store.remove(newest.model_id)
    following = store.newest_published("acme/sentiment")
    assert following is not None
    assert following.card.model_version == "10"


PLAIN = "INSERT INTO model_cards (model_name, model_version, repo_url, card) VALUES ('{name}', '{version}', 'hf://a/b', '{card}')"


def test_a_row_of_plain_sql_is_as_good_as_one_of_ours(store: CardStore, sql: AnySql) -> None:
    sql("INSERT INTO model_cards (model_name, model_version, repo_url) VALUES ('acme/x', '1', 'hf://acme/x')")
    (row,) = store.changed_since(None)
    assert isinstance(row, ModelRow)
    assert (row.key, row.revision, row.card.branch, row.card.description) == ("acme/x@1", 1, None, "")
    assert uuid.UUID(row.model_id).version == 4
    assert abs(row.updated_at - datetime.now(UTC)) < timedelta(minutes=1)
    card = json.dumps({"description": "d", "dependencies": ["numpy"], "pipeline_tag": "fill-mask"})
    sql(f"UPDATE model_cards SET card = '{card}', updated_at = '2001-01-01 00:00:00', revision = 99")
    (changed,) = store.changed_since(row.updated_at)
    assert isinstance(changed, ModelRow)
    assert (changed.revision, changed.card.task) == (2, "fill-mask")
    assert changed.updated_at >= row.updated_at
    sql("UPDATE model_cards SET branch = branch")
    assert store.changed_since(None) == [changed], "an update that changes nothing is no change"
    sql("UPDATE model_cards SET deleted_at = CURRENT_TIMESTAMP")
    assert store.get(row.model_id).deleted_at is not None
    assert store.get(row.model_id).revision == 3


def test_rows_of_one_statement_may_be_many(store: CardStore, sql: AnySql) -> None:
    sql(
        "INSERT INTO model_cards (model_name, model_version, repo_url) WITH RECURSIVE n(i) AS "
        "(SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1200) SELECT 'm' || i, '1', 'hf://a/b' FROM n"
    )
    rows = store.changed_since(None)
    assert len(rows) == 1200
    assert len({row.model_id for row in rows}) == 1200
    assert not [row for row in rows if isinstance(row, InvalidRow)]


BAD_ROWS = [
    ("a b", "1", "{}", "model_name"),
    ("acme/bad", "1|2", "{}", "model_version"),
    ("acme/bad", "1", '{"licence": "mit"}', "did you mean license"),
    ("acme/bad", "1", "[]", "mapping"),
    ("acme/bad", "1", "3", "mapping"),
    ("acme/bad", "1", '{"description": "\\ud800"}', "surrogate"),
    ("acme/bad", "1", '{"description": "\\u0000"}', "NUL"),
    ("acme/bad", "1", '{"front_matter": {"a": 1e999}}', "JSON has no way"),
    ("acme/bad", "1", '{"constellation": {"port": "x"}}', "constellation.port"),
]


@pytest.mark.parametrize(("name", "version", "card", "words"), BAD_ROWS)
def test_one_bad_row_hides_no_good_one(
    store: CardStore, sql: AnySql, name: str, version: str, card: str, words: str
) -> None:
    store.add(make_card())
    sql(PLAIN.format(name=name, version=version, card=card))
    for rows in (store.list_models(), store.changed_since(None)):
        good = [row for row in rows if isinstance(row, ModelRow)]
        (bad,) = [row for row in rows if isinstance(row, InvalidRow)]
        assert keys(list(good)) == ["acme/sentiment@1.0.0"]
        assert words in bad.problem
        assert (bad.model_name, bad.model_version) == (name, version)
    with pytest.raises(InvalidCard):
        store.get(bad.model_id)
    removed = store.remove(bad.model_id)
    assert removed.deleted_at is not None
    assert keys(store.list_models()) == ["acme/sentiment@1.0.0"]


def test_a_bad_row_is_corrected_by_registering_it(store: CardStore, sql: AnySql) -> None:
    sql(PLAIN.format(name="acme/sentiment", version="1.0.0", card='{"licence": "mit"}'))
    assert store.add(make_card()).revision == 2


def test_rows_of_plain_sql_whose_names_collide_are_told_apart_by_age(store: CardStore, sql: AnySql) -> None:
    sql(PLAIN.format(name="acme/x.y", version="1", card="{}"))
    store.list_models()
    sql(PLAIN.format(name="acme/x-y", version="1", card="{}"))
    younger, older = store.list_models()
    assert isinstance(older, ModelRow)
    assert isinstance(younger, InvalidRow)
    assert isinstance(younger.error, SlugTaken)
    with pytest.raises(SlugTaken):
        store.get(younger.model_id)
    store.remove(older.model_id)
    assert isinstance(store.list_models()[0], ModelRow)


def test_what_would_make_the_table_unreadable_is_refused_by_the_database(
    store: CardStore, sql: AnySql
) -> None:
    for statement in (
        PLAIN.format(name="a", version="1", card="{not json"),
        PLAIN.format(name="", version="1", card="{}"),
        "INSERT INTO model_cards (model_id, model_name, model_version, repo_url) VALUES ('x', 'a', '1', 'r')",
        "INSERT INTO model_cards (model_name, model_version, repo_url, deleted_at) VALUES ('a', '1', 'r', 'soon')",
        "INSERT INTO model_cards (model_name, model_version) VALUES ('a', '1')",
    ):
        with pytest.raises(Exception, match=r"CHECK|check|invalid input|violates|NOT NULL"):
            sql(statement)
    assert store.list_models() == []
