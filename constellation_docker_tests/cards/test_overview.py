"""What the gateway's list and status read: pages with filters, and the traces of versions in a history."""

from __future__ import annotations

from constellation_docker.cards import CardStore, InvalidRow, ModelRow
from constellation_docker_tests.cards.conftest import AnySql, make_card, make_publication


def keys(rows: list[ModelRow | InvalidRow]) -> list[str]:
    return [row.key for row in rows]


def add(store: CardStore, name: str, version: str, *, is_published: bool = False) -> ModelRow:
    row = store.add(make_card(model_name=name, model_version=version))
    return store.publish(row.model_id, make_publication(row.model_id)) if is_published else row


def test_a_page_holds_only_the_versions_that_its_filters_let_through(store: CardStore) -> None:
    first = add(store, "acme/a", "1", is_published=True)
    second = add(store, "acme/a", "2")
    other = add(store, "acme/b", "1", is_published=True)
    store.want("dev", "acme/a", model_id=first.model_id)
    store.want("dev", "acme/b", model_id=other.model_id, state="deleted")
    assert keys(store.list_models(name="acme/a")) == ["acme/a@1", "acme/a@2"]
    assert keys(store.list_models(environment="dev")) == ["acme/a@1"]
    assert keys(store.list_models(is_published=False)) == ["acme/a@2"]
    assert keys(store.list_models(is_published=True, name="acme/b")) == ["acme/b@1"]
    assert keys(store.list_models(name="a\x00b")) == []
    found = store.look_up_many([second.model_id, first.model_id, "0b9b4a64-0000-4000-8000-000000000001"])
    assert keys(found) == ["acme/a@1", "acme/a@2"]


def test_a_row_that_cannot_be_used_is_looked_up_as_what_it_is(store: CardStore, sql: AnySql) -> None:
    row = add(store, "acme/a", "1")
    sql("UPDATE model_cards SET card = '{\"nonsense\": 1}'")
    assert isinstance(store.look_up(row.model_id), InvalidRow)


def test_deployments_of_several_models_come_in_one_answer(store: CardStore) -> None:
    for name in ("acme/a", "acme/b", "acme/c"):
        row = add(store, name, "1", is_published=True)
        store.want("dev", name, model_id=row.model_id)
        store.want("production", name, model_id=row.model_id)
    found = store.deployments_of_all(["acme/a", "acme/c", "acme/unknown"])
    assert [row.key for row in found] == [
        "dev|acme/a",
        "production|acme/a",
        "dev|acme/c",
        "production|acme/c",
    ]


def test_a_trace_tells_a_version_that_was_rolled_back_from_one_that_was_followed(store: CardStore) -> None:
    one, two, three = (add(store, "acme/a", version, is_published=True) for version in "123")
    for row in (one, two, three, one):
        wish = store.want("dev", "acme/a", model_id=row.model_id)
        store.mark_stable("dev", "acme/a", wish.revision)
    traces = {trace.model_id: trace for trace in store.traces_of(["acme/a"])}
    assert {traces[row.model_id].was_rolled_back for row in (one, two)} == {False}
    assert traces[three.model_id].was_rolled_back
    assert traces[one.model_id].next_model_id is None
    assert (traces[one.model_id].first, traces[one.model_id].last) == (1, 4)
    assert traces[two.model_id].next_model_id == three.model_id
    stable = traces[two.model_id].stable_at
    assert stable is not None and stable.tzinfo is not None


def test_a_model_that_was_never_deployed_has_no_trace(store: CardStore) -> None:
    add(store, "acme/a", "1")
    assert store.traces_of(["acme/a"]) == []
