"""What the store returns: rows, read and validated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from pydantic import ValidationError

from constellation_docker.cards.errors import InvalidCard, ReleaseNotFound
from constellation_docker.cards.model_card import ModelCard
from constellation_docker.cards.publication import Publication
from constellation_docker.cards.registration import merged
from constellation_docker.cards.serving_options import Resources
from constellation_docker.cards.strict_record import invalid_card, problems_of
from constellation_docker.cards.tables import DeploymentRecord, ModelCardRecord, ReleaseRecord
from constellation_docker.errors import ConstellationError

State = Literal["running", "stopped", "deleted"]


@dataclass(frozen=True)
class ModelRow:
    """One model version of the store."""

    model_id: str
    card: ModelCard
    revision: int
    created_at: datetime
    updated_at: datetime
    published_at: datetime | None = None
    publication: Publication | None = None
    deleted_at: datetime | None = None

    @property
    def key(self) -> str:
        """`name@version`: the Dagster partition key."""
        return self.card.key

    @property
    def is_published(self) -> bool:
        """Whether it has an image that may be deployed."""
        return self.publication is not None


@dataclass(frozen=True)
class InvalidRow:
    """A row that somebody wrote and that cannot be used: a model version, or (with `environment`) a deployment.

    `error` says why; its text fields are as written.
    """

    model_id: str
    model_name: str
    model_version: str
    revision: int
    created_at: datetime
    updated_at: datetime
    changed_at: datetime
    error: ConstellationError
    deleted_at: datetime | None = None
    environment: str | None = None

    @property
    def problem(self) -> str:
        """Why it cannot be used, in one sentence."""
        return str(self.error)

    @property
    def key(self) -> str:
        """What it would be, as a partition key, if its name were valid: not to be added as a partition."""
        name = self.model_name if self.environment else f"{self.model_name}@{self.model_version}"
        return f"{self.environment}|{name}" if self.environment else name

    @property
    def title(self) -> str:
        """Its name and version on one line, for people. Not a partition key."""
        return " ".join(f"{self.model_name}@{self.model_version}".split())[:200]


@dataclass(frozen=True)
class DeploymentRow:
    """What is wanted of a model in an environment.

    Args:
        resources: The card's resources with this deployment's own on top; None where it has none of its own.
        stable_revision: The last revision whose rollout ended well.
        row: The model version that is wanted.
    """

    environment: str
    model_name: str
    model_id: str
    replicas: int | None
    resources: Resources | None
    state: State
    revision: int
    stable_revision: int | None
    requested_by: str | None
    created_at: datetime
    updated_at: datetime
    row: ModelRow

    @property
    def changed_at(self) -> datetime:
        """When the wish or its model version changed last."""
        return max(self.updated_at, self.row.updated_at)

    @property
    def key(self) -> str:
        """`environment|name`: the Dagster partition key."""
        return f"{self.environment}|{self.model_name}"

    @property
    def wanted_replicas(self) -> int:
        """Replicas: this deployment's own, else the card's."""
        return self.row.card.serving.replicas if self.replicas is None else self.replicas

    @property
    def wanted_resources(self) -> Resources:
        """Resources: this deployment's own on top of the card's."""
        return self.resources or self.row.card.serving.resources


@dataclass(frozen=True)
class Release:
    """One revision of a deployment.

    Args:
        image: What it ran (see `Publication.image`); None where the model was not yet published.
        stable_at: When its rollout ended well; None where it did not.
    """

    environment: str
    model_name: str
    revision: int
    model_id: str
    image: str | None
    replicas: int | None
    resources: dict[str, Any] | None
    state: State
    requested_by: str | None
    at: datetime
    stable_at: datetime | None


def model_row(record: ModelCardRecord) -> ModelRow:
    """A record as a validated row.

    Raises:
        InvalidCard: What somebody wrote into the row cannot be used.
    """
    card = ModelCard.from_row(
        model_name=record.model_name,
        model_version=record.model_version,
        repo_url=record.repo_url,
        branch=record.branch,
        card=record.card,
    )
    return ModelRow(
        model_id=record.model_id,
        card=card,
        revision=record.revision,
        created_at=record.created_at,
        updated_at=record.updated_at,
        published_at=record.published_at,
        publication=_publication(record),
        deleted_at=record.deleted_at,
    )


def _publication(record: ModelCardRecord) -> Publication | None:
    if record.publication is None:
        return None
    try:
        return Publication.model_validate(record.publication)
    except ValidationError as error:
        raise invalid_card(
            f"The publication of {record.model_name}@{record.model_version}",
            problems_of(error),
            remedy="Set publication and published_at to NULL, and package the model again.",
        ) from None


def read_model(
    record: ModelCardRecord, slug_problem: ConstellationError | None = None
) -> ModelRow | InvalidRow:
    """A record as a row, or as the invalid row that it is."""
    try:
        row = model_row(record)
    except InvalidCard as error:
        return invalid_row(record, error)
    if slug_problem and record.deleted_at is None:
        return invalid_row(record, slug_problem)
    return row


def invalid_row(
    record: ModelCardRecord, error: ConstellationError, *, deployment: DeploymentRecord | None = None
) -> InvalidRow:
    """The invalid row for a model version, or for a deployment of it."""
    return InvalidRow(
        model_id=record.model_id,
        model_name=deployment.model_name if deployment else record.model_name,
        model_version=record.model_version,
        revision=(deployment or record).revision,
        created_at=(deployment or record).created_at,
        updated_at=(deployment or record).updated_at,
        changed_at=max(deployment.updated_at, record.updated_at) if deployment else record.updated_at,
        error=error,
        deleted_at=record.deleted_at,
        environment=deployment.environment if deployment else None,
    )


def read_deployment(
    record: DeploymentRecord, model: ModelCardRecord, slug_problem: ConstellationError | None = None
) -> DeploymentRow | InvalidRow:
    """Two joined records as a deployment, or as the invalid row that they are."""
    row = read_model(model, slug_problem)
    if isinstance(row, InvalidRow):
        return invalid_row(model, row.error, deployment=record)
    try:
        resources = resolve_resources(row.card, record.resources)
        if row.card.model_name != record.model_name:
            raise invalid_card(
                f"The deployment of {record.model_name} in {record.environment}",
                [{"field": "model_id", "problem": f"it is the id of {row.card.key}, another model"}],
                remedy="Set model_id to a version of the model.",
            )
    except InvalidCard as error:
        return invalid_row(model, error, deployment=record)
    return DeploymentRow(
        environment=record.environment,
        model_name=record.model_name,
        model_id=record.model_id,
        replicas=record.replicas,
        resources=resources,
        state=record.state,  # type: ignore[arg-type]  # the table's CHECK allows only these
        revision=record.revision,
        stable_revision=record.stable_revision,
        requested_by=record.requested_by,
        created_at=record.created_at,
        updated_at=record.updated_at,
        row=row,
    )


def resolve_resources(card: ModelCard, given: Any) -> Resources | None:
    """A deployment's resources on top of the card's; None where it gives none.

    Raises:
        InvalidCard: A field is unknown or wrong.
    """
    if given is None:
        return None
    try:
        if not isinstance(given, dict):
            return Resources.model_validate(given)
        return Resources.model_validate(merged(card.serving.resources.model_dump(exclude_unset=True), given))
    except ValidationError as error:
        raise invalid_card(
            f"The resources of the deployment of {card.key}",
            problems_of(error),
            remedy="Write them as a card's constellation.resources.",
        ) from None


def read_release(record: ReleaseRecord) -> Release:
    """A record as a release."""
    return Release(
        environment=record.environment,
        model_name=record.model_name,
        revision=record.revision,
        model_id=record.model_id,
        image=record.image,
        replicas=record.replicas,
        resources=record.resources if isinstance(record.resources, dict) else None,
        state=record.state,  # type: ignore[arg-type]
        requested_by=record.requested_by,
        at=record.created_at,
        stable_at=record.stable_at,
    )


def choose_release(history: Sequence[Release], to: Literal["previous"] | int) -> Release:
    """The release to go back to.

    Args:
        history: All releases of one deployment, newest first. Not empty.
        to: A revision; or `previous`: the newest before the present one that ran another version or image,
            a stable one if there is any.

    Raises:
        ReleaseNotFound: There is none.
    """
    present = history[0]
    where = f"{present.model_name} in {present.environment}"
    if to != "previous":
        for release in history:
            if release.revision == to:
                return release
        known = ", ".join(str(release.revision) for release in history[:10])
        raise ReleaseNotFound(
            f"{where} has no revision {to}.", remedy=f"Choose one of: {known}.", revision=to, known=known
        )
    others = [
        release
        for release in history[1:]
        if release.state == "running"
        and (release.model_id, release.image) != (present.model_id, present.image)
    ]
    stable = [release for release in others if release.stable_at is not None]
    if not others:
        raise ReleaseNotFound(
            f"{where} has no earlier release than revision {present.revision} to go back to.",
            remedy="Deploy a version by its name.",
        )
    return (stable or others)[0]
