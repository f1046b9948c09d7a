"""What is wanted of a model in an environment, its history, and the lease on it, on both databases."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import pytest

from constellation_docker.cards import (
    CardNotFound,
    CardStore,
    DeploymentNotFound,
    DeploymentRow,
    InvalidCard,
    InvalidRow,
    LeaseHeld,
    LeaseLost,
    ModelRow,
    ReleaseNotFound,
)
from constellation_docker.errors import InvalidInput
from constellation_docker_tests.cards.conftest import AnySql, make_card, make_publication

NAME = "acme/sentiment"


def published(store: CardStore, version: str = "1.0.0", image: str | None = None) -> ModelRow:
    row = store.add(
        make_card(model_version=version, card={"constellation": {"replicas": 2, "resources": {"pids": 64}}})
    )
    return store.publish(row.model_id, make_publication(row.model_id, image or f"repo@sha256:{version}"))


def revisions(store: CardStore) -> list[tuple[int, str | None]]:
    return [(release.revision, release.image) for release in store.releases("dev", NAME)]


def test_a_wish_is_read_back_with_its_model(store: CardStore) -> None:
    row = published(store)
    wish = store.want("dev", NAME, model_id=row.model_id, requested_by="me")
    assert wish.row == row
    assert (wish.key, wish.revision, wish.state, wish.requested_by) == (
        "dev|acme/sentiment",
        1,
        "running",
        "me",
    )
    assert (wish.wanted_replicas, wish.wanted_resources.pids) == (2, 64)
    assert store.wanted("dev") == [wish] == store.deployments_of(NAME)
    assert store.wanted("production") == []
    assert store.deployment("dev", NAME) == wish
    with pytest.raises(DeploymentNotFound, match=r"acme/sentiment in production"):
        store.deployment("production", NAME)


def test_a_wish_is_withdrawn_also_where_its_row_cannot_be_used(store: CardStore, sql: AnySql) -> None:
    row = published(store)
    store.want("dev", NAME, model_id=row.model_id)
    sql("UPDATE deployments SET resources = '{\"memroy\": 1}'")
    assert isinstance(store.wanted("dev")[0], InvalidRow)
    revision = store.withdraw("dev", NAME, requested_by="me")
    assert store.withdraw("dev", NAME, requested_by="somebody else") == revision
    assert (store.revision_of("dev", NAME), store.revision_of("production", NAME)) == (revision, None)
    assert store.wanted("dev") == []
    (release, *_) = store.releases("dev", NAME)
    assert (release.revision, release.state, release.requested_by) == (revision, "deleted", "me")
    with pytest.raises(DeploymentNotFound, match=r"acme/sentiment in production"):
        store.withdraw("production", NAME)


def test_a_revision_is_made_only_where_something_changes(store: CardStore) -> None:
    row = published(store)
    first = store.want(
        "dev", NAME, model_id=row.model_id, replicas=3, resources={"memory": "2g"}, requested_by="a"
    )
    assert store.want("dev", NAME, model_id=row.model_id, requested_by="b") == first
    assert (first.wanted_replicas, first.wanted_resources.memory, first.wanted_resources.pids) == (
        3,
        "2g",
        64,
    )
    scaled = store.want("dev", NAME, model_id=row.model_id, replicas=4, requested_by="c")
    assert (scaled.revision, scaled.requested_by, scaled.wanted_resources.memory) == (2, "c", "2g")
    assert scaled.updated_at > first.updated_at or scaled.updated_at == first.updated_at
    back = store.want("dev", NAME, model_id=row.model_id, replicas=None, resources=None)
    assert (back.revision, back.wanted_replicas, back.wanted_resources.memory) == (3, 2, "1g")
    assert store.want("dev", NAME, model_id=row.model_id, state="stopped").revision == 4
    assert [release.revision for release in store.releases("dev", NAME)] == [4, 3, 2, 1]
    assert [release.requested_by for release in store.releases("dev", NAME, limit=3)] == [None, None, "c"]


def test_a_deleted_wish_is_hidden_and_counts_on_from_where_it_was(store: CardStore) -> None:
    row = published(store)
    store.want("dev", NAME, model_id=row.model_id)
    assert store.want("dev", NAME, model_id=row.model_id, state="deleted").revision == 2
    assert store.wanted("dev") == []
    assert len(store.wanted("dev", include_deleted=True)) == 1
    assert store.want("dev", NAME, model_id=row.model_id).revision == 3


def test_what_cannot_be_wanted_is_refused(store: CardStore) -> None:
    row = published(store)
    other = store.add(make_card(model_name="acme/other"))
    with pytest.raises(CardNotFound):
        store.want("dev", NAME, model_id=str(uuid.uuid4()))
    with pytest.raises(InvalidInput, match=r"acme/other@1\.0\.0, not a version of acme/sentiment"):
        store.want("dev", NAME, model_id=other.model_id)
    with pytest.raises(InvalidCard, match="did you mean memory"):
        store.want("dev", NAME, model_id=row.model_id, resources={"memori": "1g"})
    for environment in ("", "a|b", "Dev", "a b", "x" * 41):
        with pytest.raises(InvalidInput, match="cannot name an environment"):
            store.want(environment, NAME, model_id=row.model_id)
    for replicas in (0, -1, 1001):
        with pytest.raises(InvalidInput, match="replicas"):
            store.want("dev", NAME, model_id=row.model_id, replicas=replicas)
    store.remove(row.model_id)
    with pytest.raises(CardNotFound):
        store.want("dev", NAME, model_id=row.model_id)
    assert store.wanted("dev") == []


def test_going_back_takes_the_last_other_image_that_was_stable(store: CardStore) -> None:
    rows = {version: published(store, version) for version in ("1", "2", "3")}
    with pytest.raises(DeploymentNotFound):
        store.release("dev", NAME, "previous")
    store.want("dev", NAME, model_id=rows["1"].model_id)
    with pytest.raises(ReleaseNotFound, match="no earlier release"):
        store.release("dev", NAME, "previous")
    store.mark_stable("dev", NAME, 1)
    store.want("dev", NAME, model_id=rows["2"].model_id)
    store.want("dev", NAME, model_id=rows["3"].model_id)
    store.want("dev", NAME, model_id=rows["3"].model_id, replicas=5)
    assert store.release("dev", NAME, "previous").model_id == rows["1"].model_id, "2 was never stable"
    assert store.release("dev", NAME, 2).model_id == rows["2"].model_id
    assert store.deployment("dev", NAME).stable_revision == 1
    with pytest.raises(ReleaseNotFound, match=r"no revision 9.*4, 3, 2, 1"):
        store.release("dev", NAME, 9)
    with pytest.raises(ReleaseNotFound):
        store.mark_stable("dev", NAME, 9)


def test_a_rebuilt_image_is_a_new_release_of_every_deployment(store: CardStore) -> None:
    row = published(store, image="repo@sha256:first")
    store.want("dev", NAME, model_id=row.model_id)
    store.want("production", NAME, model_id=row.model_id)
    store.want("gone", NAME, model_id=row.model_id, state="deleted")
    store.publish(row.model_id, make_publication(row.model_id, "repo@sha256:second"))
    assert revisions(store) == [(2, "repo@sha256:second"), (1, "repo@sha256:first")]
    assert store.deployment("production", NAME).revision == 2
    assert store.deployment("gone", NAME).revision == 1


def test_a_model_that_is_wanted_before_it_is_published_appears_again_once_it_is(store: CardStore) -> None:
    row = store.add(make_card())
    wish = store.want("dev", NAME, model_id=row.model_id)
    (seen,) = store.deployments_changed_since(None)
    assert seen == wish
    behind = (seen.changed_at, seen.key)
    assert store.deployments_changed_since(behind) == []
    store.publish(row.model_id, make_publication(row.model_id, "repo@sha256:1"))
    again = [*store.deployments_changed_since(behind), *store.deployments_changed_since(seen.changed_at)]
    assert isinstance(again[0], DeploymentRow)
    assert again[0].row.is_published
    assert again[0].revision == 1
    assert revisions(store) == [(1, "repo@sha256:1")]


def test_changed_deployments_are_read_page_by_page(store: CardStore) -> None:
    row = published(store)
    for number in range(5):
        store.want(f"e{number}", NAME, model_id=row.model_id)
    seen = []
    since = None
    while page := store.deployments_changed_since(since, limit=2):
        seen += [deployment.key for deployment in page]
        since = (page[-1].changed_at, page[-1].key)
    assert sorted(seen) == [f"e{number}|{NAME}" for number in range(5)]


def test_a_wish_of_plain_sql_is_as_good_as_one_of_ours(store: CardStore, sql: AnySql) -> None:
    rows = [published(store, version) for version in ("1", "2")]
    insert = f"INSERT INTO deployments (environment, model_name, model_id) VALUES ('dev', '{NAME}', '{rows[0].model_id}')"
    sql(insert)
    (wish,) = store.wanted("dev")
    assert isinstance(wish, DeploymentRow)
    assert (wish.revision, wish.state, wish.replicas) == (1, "running", None)
    sql(f"UPDATE deployments SET model_id = '{rows[1].model_id}', replicas = 4, requested_by = 'backend'")
    sql("UPDATE deployments SET requested_by = 'somebody'")
    wish = store.deployment("dev", NAME)
    assert (wish.revision, wish.replicas, wish.row.card.model_version) == (2, 4, "2")
    assert revisions(store) == [(2, "repo@sha256:2"), (1, "repo@sha256:1")]
    sql("DELETE FROM deployments")
    sql(insert)
    assert revisions(store)[0] == (3, "repo@sha256:1"), "a revision is never used twice"
    assert store.deployment("dev", NAME).revision == 3


def test_a_wish_that_cannot_be_used_stays_in_its_place(store: CardStore, sql: AnySql) -> None:
    good = published(store)
    store.want("dev", NAME, model_id=good.model_id)
    other = store.add(make_card(model_name="acme/other"))
    for name, resources, words in (
        ("acme/other", '{"memori": 1}', "memory"),
        ("acme/third", "null", "another model"),
    ):
        sql(
            "INSERT INTO deployments (environment, model_name, model_id, resources) "
            f"VALUES ('dev', '{name}', '{other.model_id}', '{resources}')"
        )
        rows = store.wanted("dev")
        (bad,) = [row for row in rows if isinstance(row, InvalidRow)]
        assert (bad.environment, bad.model_name, bad.key) == ("dev", name, f"dev|{name}")
        assert words in bad.problem
        assert [row.model_name for row in rows if isinstance(row, DeploymentRow)] == [NAME]
        with pytest.raises(InvalidCard):
            store.deployment("dev", name)
        sql(f"DELETE FROM deployments WHERE model_name = '{name}'")
    for state, replicas in (("paused", 1), ("running", 0)):
        with pytest.raises(Exception, match=r"CHECK|check"):
            sql(f"UPDATE deployments SET state = '{state}', replicas = {replicas}")


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 31, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def leased(url: str, clock: Clock) -> CardStore:
    """A store with one deployment and a clock that is set by hand."""
    store = CardStore.open(url, clock=clock)
    row = published(store)
    store.want("dev", NAME, model_id=row.model_id)
    return store


def test_a_lease_has_one_holder_at_a_time(leased: CardStore) -> None:
    with leased.lease("dev", NAME, holder="run-1", seconds=60):
        with pytest.raises(LeaseHeld, match="run-1 until 12:01:00 UTC") as caught:
            leased.lease("dev", NAME, holder="run-2", seconds=60).acquire()
        assert caught.value.is_transient
        assert caught.value.details["holder"] == "run-1"
        leased.lease("dev", NAME, holder="run-1", seconds=60).acquire()
    with leased.lease("dev", NAME, holder="run-2", seconds=60):
        pass


def test_a_lease_ends_by_itself_and_its_former_holder_learns_of_it(leased: CardStore, clock: Clock) -> None:
    lost = leased.lease("dev", NAME, holder="run-1", seconds=60).acquire()
    clock.advance(59)
    assert lost.renew() == clock.now + timedelta(seconds=60)
    clock.advance(61)
    assert lost.renew(10) == clock.now + timedelta(seconds=10), "nobody else took it meanwhile"
    clock.advance(11)
    with leased.lease("dev", NAME, holder="run-2", seconds=60):
        with pytest.raises(LeaseLost, match="run-2 has it now"):
            lost.renew()
        lost.release()
        with pytest.raises(LeaseHeld):
            leased.lease("dev", NAME, holder="run-3", seconds=60).acquire()
    with pytest.raises(LeaseLost, match="it was released"):
        lost.renew()


def test_a_lease_is_given_up_when_its_work_fails_and_is_no_change(leased: CardStore) -> None:
    before = leased.deployment("dev", NAME)
    with pytest.raises(ZeroDivisionError), leased.lease("dev", NAME, holder="run-1", seconds=60):
        raise ZeroDivisionError
    with leased.lease("dev", NAME, holder="run-2", seconds=60):
        assert leased.deployment("dev", NAME) == before
    with pytest.raises(DeploymentNotFound):
        leased.lease("dev", "acme/none", holder="run-1", seconds=60).acquire()


def test_without_a_clock_of_its_own_a_lease_takes_the_databases(store: CardStore) -> None:
    row = published(store)
    store.want("dev", NAME, model_id=row.model_id)
    lease = store.lease("dev", NAME, holder="run-1", seconds=60).acquire()
    assert lease.until is not None
    assert abs(lease.until - datetime.now(UTC) - timedelta(seconds=60)) < timedelta(seconds=30)
