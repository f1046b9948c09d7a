"""The store's deployments: what is wanted of a model in an environment, and the history of that."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from enum import Enum
from typing import Any, Final, Literal

from sqlalchemy import case, func, select, type_coerce, update
from sqlalchemy.orm import Session

from constellation_docker.cards.canonical_json import canonical_json
from constellation_docker.cards.database import Database
from constellation_docker.cards.errors import DeploymentNotFound, ReleaseNotFound, SlugTaken
from constellation_docker.cards.leases import Lease
from constellation_docker.cards.records import checked_uuid, insert_or_ignore, is_after, not_found
from constellation_docker.cards.release_traces import ReleaseTrace, trace_query
from constellation_docker.cards.rows import (
    DeploymentRow,
    InvalidRow,
    Release,
    State,
    choose_release,
    model_row,
    read_deployment,
    read_release,
    resolve_resources,
)
from constellation_docker.cards.serving_options import Resources
from constellation_docker.cards.slug import checked_environment
from constellation_docker.cards.tables import DeploymentRecord, ModelCardRecord, ReleaseRecord, UtcTimestamp
from constellation_docker.errors import InvalidInput


class Keep(Enum):
    """Stands for: as it is now."""

    KEEP = "keep"


KEEP: Final = Keep.KEEP


class DeploymentTable:
    """Reading and writing `deployments`.

    Args:
        database: The database.
        slug_problems: Which of the names may not be used, and why (`ModelTable` knows).
    """

    def __init__(
        self, database: Database, slug_problems: Callable[[Iterable[str]], Mapping[str, SlugTaken]]
    ) -> None:
        self._database = database
        self._slug_problems = slug_problems

    def want(
        self,
        environment: str,
        model_name: str,
        *,
        model_id: str,
        replicas: int | Keep | None = KEEP,
        resources: Resources | Mapping[str, Any] | Keep | None = KEEP,
        state: State = "running",
        requested_by: str | None = None,
    ) -> DeploymentRow:
        """Say what is wanted of a model in an environment. Its revision grows only where something changes.

        Args:
            environment: The environment.
            model_name: The model.
            model_id: The version that is wanted.
            replicas: How many; None: as many as the card says; by default as it is now.
            resources: On top of the card's; None: the card's; by default as they are now.
            state: running, stopped (kept, but not running) or deleted.
            requested_by: Who wants it; recorded with the revision.

        Raises:
            CardNotFound: There is no such version, or it was removed and is wanted running.
            InvalidCard: The resources are wrong, or the version is another model's.
            InvalidInput: The environment's name or the number of replicas is wrong.
        """
        _check(environment, replicas)
        if isinstance(resources, Resources):
            resources = resources.model_dump(mode="json", exclude_unset=True)
        elif isinstance(resources, Mapping):
            resources = dict(resources)
        with self._database.writing() as session:
            model = session.get(ModelCardRecord, checked_uuid(model_id))
            if model is None or (model.deleted_at is not None and state == "running"):
                raise not_found(f"{model_name} ({model_id})")
            card = model_row(model).card
            if card.model_name != model_name:
                raise InvalidInput(
                    f"The model_id {model_id} is {card.key}, not a version of {model_name}.",
                    remedy="Give the id of a version of the model.",
                )
            wanted: dict[str, Any] = {"model_id": model.model_id, "state": state}
            if replicas is not KEEP:
                wanted["replicas"] = replicas
            if resources is not KEEP:
                resolve_resources(card, resources)
                wanted["resources"] = resources
            self._write(session, environment, model_name, wanted, requested_by)
        return self.deployment(environment, model_name)

    def _write(
        self, session: Session, environment: str, model_name: str, wanted: dict[str, Any], by: str | None
    ) -> None:
        key = {"environment": environment, "model_name": model_name}
        insert = insert_or_ignore(session, DeploymentRecord).values(**key, **wanted, requested_by=by)
        if session.scalar(insert.returning(DeploymentRecord.revision)) is not None:
            return
        record = session.get(DeploymentRecord, (environment, model_name), with_for_update=True)
        changes = {
            name: value
            for name, value in wanted.items()
            if canonical_json(getattr(record, name)) != canonical_json(value)
        }
        if changes:
            session.execute(
                update(DeploymentRecord).filter_by(**key).values(**changes, requested_by=by),
                execution_options={"synchronize_session": False},
            )

    def withdraw(self, environment: str, model_name: str, *, requested_by: str | None = None) -> int:
        """Say that a model is no longer wanted in an environment, also where its row cannot be used.

        Returns:
            The deployment's revision. Again changes nothing.

        Raises:
            DeploymentNotFound: Nothing ever was.
        """
        with self._database.writing() as session:
            record = session.get(DeploymentRecord, (environment, model_name), with_for_update=True)
            if record is None:
                raise _no_deployment(environment, model_name)
            if record.state != "deleted":
                session.execute(
                    update(DeploymentRecord)
                    .filter_by(environment=environment, model_name=model_name)
                    .values(state="deleted", requested_by=requested_by),
                    execution_options={"synchronize_session": False},
                )
                session.refresh(record)
            return record.revision

    def wanted(self, environment: str, *, include_deleted: bool = False) -> list[DeploymentRow | InvalidRow]:
        """Everything that is wanted in an environment, by model name, in one query.

        Returns:
            Deployments. One that cannot be used (its card or resources are wrong) is an `InvalidRow` in its
            place: it is still wanted, so whoever compares this with what runs must leave its containers alone.

        Raises:
            StoreUnavailable: The database does not answer; never an empty list instead.
        """
        query = _joined().where(DeploymentRecord.environment == environment)
        if not include_deleted:
            query = query.where(DeploymentRecord.state != "deleted")
        return self._select_deployments(query.order_by(DeploymentRecord.model_name))

    def deployments_changed_since(
        self, since: datetime | tuple[datetime, str] | None, limit: int | None = None
    ) -> list[DeploymentRow | InvalidRow]:
        """Deployments whose wish or whose model version changed, in all environments, oldest change first.

        A deployment appears again when the version that it wants is published. See `changed_since` for readers
        that must miss nothing.

        Args:
            since: A moment (inclusive); or `(changed_at, key)` of the last deployment that was read, to go on
                behind it; or None, from the beginning.
            limit: At most so many, ordered by `(changed_at, key)`.

        Returns:
            Deployments, deleted ones too; one that cannot be used is an `InvalidRow` in its place.

        Raises:
            StoreUnavailable: The database does not answer; never an empty list instead.
        """
        changed_at = type_coerce(
            case(
                (DeploymentRecord.updated_at > ModelCardRecord.updated_at, DeploymentRecord.updated_at),
                else_=ModelCardRecord.updated_at,
            ),
            UtcTimestamp,
        )
        key = DeploymentRecord.environment + "|" + DeploymentRecord.model_name
        query = _joined().order_by(changed_at, key)
        if since is not None:
            query = query.where(is_after(since, changed_at, key))
        return self._select_deployments(query.limit(limit))

    def deployments_of(self, model_name: str) -> list[DeploymentRow | InvalidRow]:
        """Where a model is wanted, by environment; deleted deployments too."""
        query = _joined().where(DeploymentRecord.model_name == model_name)
        return self._select_deployments(query.order_by(DeploymentRecord.environment))

    def deployments_of_all(self, model_names: Iterable[str]) -> list[DeploymentRow | InvalidRow]:
        """Where some models are wanted, by name and environment, in one query; deleted deployments too."""
        query = _joined().where(DeploymentRecord.model_name.in_(sorted(set(model_names))))
        return self._select_deployments(
            query.order_by(DeploymentRecord.model_name, DeploymentRecord.environment)
        )

    def count_wanted(self) -> dict[str, int]:
        """How many models are wanted running, by environment."""
        query = (
            select(DeploymentRecord.environment, func.count())
            .where(DeploymentRecord.state == "running")
            .group_by(DeploymentRecord.environment)
        )
        with self._database.reading() as session:
            return {row[0]: row[1] for row in session.execute(query)}

    def traces_of(self, model_names: Iterable[str]) -> list[ReleaseTrace]:
        """What the history of some models' deployments says of each version, in one query."""
        query = trace_query(sorted(set(model_names)))
        with self._database.reading() as session:
            return [ReleaseTrace(*row) for row in session.execute(query)]

    def deployment(self, environment: str, model_name: str) -> DeploymentRow:
        """What is wanted of a model in an environment, a deleted deployment too.

        Raises:
            DeploymentNotFound: Nothing ever was.
            InvalidCard, SlugTaken: The row cannot be used.
        """
        rows = self._select_deployments(
            _joined().where(
                DeploymentRecord.environment == environment, DeploymentRecord.model_name == model_name
            )
        )
        if not rows:
            raise _no_deployment(environment, model_name)
        if isinstance(rows[0], InvalidRow):
            raise rows[0].error
        return rows[0]

    def revision_of(self, environment: str, model_name: str) -> int | None:
        """The revision of a deployment, also of one that cannot be used; None where nothing was ever wanted."""
        query = select(DeploymentRecord.revision).filter_by(environment=environment, model_name=model_name)
        with self._database.reading() as session:
            return session.scalar(query)

    def releases(self, environment: str, model_name: str, *, limit: int | None = None) -> list[Release]:
        """The history of a deployment, newest revision first; empty where nothing was ever wanted."""
        query = (
            select(ReleaseRecord)
            .where(ReleaseRecord.environment == environment, ReleaseRecord.model_name == model_name)
            .order_by(ReleaseRecord.revision.desc())
            .limit(limit)
        )
        with self._database.reading() as session:
            return [read_release(record) for record in session.scalars(query)]

    def release(self, environment: str, model_name: str, to: Literal["previous"] | int) -> Release:
        """The release to go back to; see `choose_release`.

        Raises:
            DeploymentNotFound: Nothing was ever wanted of this model there.
            ReleaseNotFound: The history has no such revision, or nothing earlier.
        """
        history = self.releases(environment, model_name)
        if not history:
            raise _no_deployment(environment, model_name)
        return choose_release(history, to)

    def mark_stable(self, environment: str, model_name: str, revision: int) -> None:
        """Record that a revision's rollout ended well: what comes after may be reverted to it.

        Raises:
            ReleaseNotFound: There is no such revision.
        """
        with self._database.writing() as session:
            release = session.get(ReleaseRecord, (environment, model_name, revision))
            if release is None:
                raise ReleaseNotFound(
                    f"{model_name} in {environment} has no revision {revision}.",
                    remedy="Mark a revision that the store gave.",
                    revision=revision,
                )
            release.stable_at = self._database.now(session)
            session.execute(
                update(DeploymentRecord)
                .filter_by(environment=environment, model_name=model_name)
                .values(stable_revision=revision)
            )

    def lease(self, environment: str, model_name: str, *, holder: str, seconds: float) -> Lease:
        """A lease on a deployment, for a `with` block; see `Lease`."""
        return Lease(self._database, environment, model_name, holder=holder, seconds=seconds)

    def _select_deployments(self, query: Any) -> list[DeploymentRow | InvalidRow]:
        with self._database.reading() as session:
            pairs = [(deployment, model) for deployment, model in session.execute(query)]
        problems = self._slug_problems(model.model_name for _, model in pairs)
        return [read_deployment(record, model, problems.get(model.model_name)) for record, model in pairs]


def _joined() -> Any:
    return select(DeploymentRecord, ModelCardRecord).join(
        ModelCardRecord, ModelCardRecord.model_id == DeploymentRecord.model_id
    )


def _check(environment: str, replicas: int | Keep | None) -> None:
    try:
        checked_environment(environment)
    except ValueError as error:
        raise InvalidInput(f"{environment[:80]!r} cannot name an environment: {error}.") from None
    if isinstance(replicas, int) and not 1 <= replicas <= 1000:
        raise InvalidInput(
            f"{replicas} replicas cannot be wanted.",
            remedy="Give 1 to 1000; to have none, stop the deployment.",
        )


def _no_deployment(environment: str, model_name: str) -> DeploymentNotFound:
    return DeploymentNotFound(
        f"Nothing was ever deployed of {model_name[:200]} in {environment[:80]}.",
        remedy="Deploy a published version of it first.",
        environment=environment,
        model_name=model_name,
    )
