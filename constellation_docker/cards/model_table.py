"""The store's model versions: adding, correcting, publishing, removing, reading."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import and_, func, or_, select, update
from sqlalchemy.orm import Session

from constellation_docker.cards.database import Database
from constellation_docker.cards.errors import CardChanged, ModelIdTaken, SlugTaken, VersionPublished
from constellation_docker.cards.model_card import ModelCard
from constellation_docker.cards.publication import Publication
from constellation_docker.cards.records import (
    checked_uuid,
    columns_of,
    differences,
    find_record,
    insert_or_ignore,
    is_after,
    is_storable,
    not_found,
    update_record,
)
from constellation_docker.cards.rows import InvalidRow, ModelRow, model_row, read_model
from constellation_docker.cards.slug_table import (
    claim_missing_slugs,
    claim_slug,
    names_without_slug,
    taken_slugs,
)
from constellation_docker.cards.tables import DeploymentRecord, ModelCardRecord, ReleaseRecord
from constellation_docker.errors import InvalidInput


class ModelTable:
    """Reading and writing `model_cards`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, card: ModelCard, *, model_id: str | None = None) -> ModelRow:
        """Register a model version.

        The same card again changes nothing. Another card for the same name and version corrects it, until it
        is published. A removed version comes back.

        Args:
            card: The card.
            model_id: The id to give it (a UUID); by default the database makes one.

        Raises:
            VersionPublished: The version is published, and this card differs. `details["differs"]` says in what.
            SlugTaken: Another model's name has the same slug.
            ModelIdTaken: `model_id` belongs to another version, or the version has another id.
            StoreUnavailable: The database does not answer.
        """
        values = columns_of(card)
        if model_id is not None:
            values["model_id"] = checked_uuid(model_id)
        with self._database.writing() as session:
            claim_slug(session, card.model_name)
            insert = insert_or_ignore(session, ModelCardRecord).values(**values)
            is_new = session.scalar(insert.returning(ModelCardRecord.model_id)) is not None
            record = find_record(session, card.model_name, card.model_version, lock=True)
            if record is None:
                raise ModelIdTaken(
                    f"The model_id {model_id} belongs to another model version than {card.key}.",
                    remedy="Leave model_id out, or choose another UUID.",
                    model_id=model_id,
                )
            if model_id is not None and record.model_id != values["model_id"]:
                raise ModelIdTaken(
                    f"{card.key} is registered already, as {record.model_id} and not as {model_id}.",
                    remedy="Leave model_id out, or register a new version.",
                    model_id=record.model_id,
                )
            if not is_new:
                self._correct(session, record, card)
            return model_row(record)

    def correct(self, card: ModelCard) -> ModelRow:
        """Change a registered version that is not yet published; nothing happens where nothing differs.

        Raises:
            CardNotFound: It is not registered.
            VersionPublished: It is published, and this card differs.
        """
        with self._database.writing() as session:
            record = find_record(session, card.model_name, card.model_version, lock=True)
            if record is None:
                raise not_found(card.key)
            self._correct(session, record, card)
            return model_row(record)

    def _correct(self, session: Session, record: ModelCardRecord, card: ModelCard) -> None:
        differs = differences(record, card)
        if differs and record.published_at is not None:
            raise VersionPublished(
                f"{card.key} is published and never changes; this card differs in {', '.join(differs)}.",
                remedy="Register it as a new version.",
                differs=differs,
                model_id=record.model_id,
            )
        changes: dict[str, Any] = columns_of(card) if differs else {}
        if record.deleted_at is not None:
            changes["deleted_at"] = None
        if changes:
            update_record(session, record, changes)

    def get(self, model_id: str) -> ModelRow:
        """A model version by its id, removed ones too.

        Raises:
            CardNotFound: There is none.
            InvalidCard: Somebody wrote a row that cannot be used.
            SlugTaken: Somebody wrote a row whose name has another model's slug.
        """
        return self._one(self._record(model_id), model_id)

    def find(self, model_name: str, model_version: str) -> ModelRow | None:
        """A model version by name and version, removed ones too; None where there is none.

        Raises:
            InvalidCard, SlugTaken: As for `get`.
        """
        if not is_storable(model_name, model_version):
            return None
        with self._database.reading() as session:
            record = find_record(session, model_name, model_version)
        return self._one(record, "") if record else None

    def id_of(self, model_name: str, model_version: str) -> str:
        """The id of a model version, also of one that cannot be used.

        Raises:
            CardNotFound: There is none.
        """
        if is_storable(model_name, model_version):
            with self._database.reading() as session:
                record = find_record(session, model_name, model_version)
            if record is not None:
                return record.model_id
        raise not_found(f"{model_name}@{model_version}")

    def look_up(self, model_id: str) -> ModelRow | InvalidRow:
        """A model version by its id, removed ones too; one that cannot be used as the `InvalidRow` that it is.

        Raises:
            CardNotFound: There is none.
        """
        record = self._record(model_id)
        if record is None:
            raise not_found(model_id)
        return self._read([record])[0]

    def look_up_many(self, model_ids: Iterable[str]) -> list[ModelRow | InvalidRow]:
        """Model versions by their ids, by name and version; those that are not there are left out."""
        query = select(ModelCardRecord).where(ModelCardRecord.model_id.in_(sorted(set(model_ids))))
        return self._select_models(query.order_by(ModelCardRecord.model_name, ModelCardRecord.model_version))

    def _record(self, model_id: str) -> ModelCardRecord | None:
        try:
            known_form = checked_uuid(model_id)
        except InvalidInput:
            return None
        with self._database.reading() as session:
            return session.get(ModelCardRecord, known_form)

    def _one(self, record: ModelCardRecord | None, model_id: str) -> ModelRow:
        if record is None:
            raise not_found(model_id)
        row = self._read([record])[0]
        if isinstance(row, InvalidRow):
            raise row.error
        return row

    def list_models(
        self,
        *,
        include_deleted: bool = False,
        name: str | None = None,
        environment: str | None = None,
        is_published: bool | None = None,
        search: str | None = None,
        after: str | None = None,
        limit: int | None = None,
    ) -> list[ModelRow | InvalidRow]:
        """Model versions, by name and version.

        Args:
            include_deleted: Whether removed ones are listed too.
            name: Only the versions of this model.
            environment: Only those that are wanted in this environment, running or stopped.
            is_published: Only those that are published, or only those that are not.
            search: Only those whose name, version or description contains this, in any case.
            after: Only those after this `name@version`: the last one of the page before.
            limit: At most so many.

        Returns:
            Rows; one that cannot be used is an `InvalidRow` in its place, and hides no other.

        Raises:
            StoreUnavailable: The database does not answer; never an empty list instead.
        """
        query = select(ModelCardRecord).order_by(ModelCardRecord.model_name, ModelCardRecord.model_version)
        if not include_deleted:
            query = query.where(ModelCardRecord.deleted_at.is_(None))
        if not is_storable(search or "", after or "", name or "", environment or ""):
            return []
        if name is not None:
            query = query.where(ModelCardRecord.model_name == name)
        if is_published is not None:
            is_set = ModelCardRecord.published_at.is_not(None)
            query = query.where(is_set if is_published else ~is_set)
        if environment is not None:
            query = query.where(
                ModelCardRecord.model_id.in_(
                    select(DeploymentRecord.model_id).where(
                        DeploymentRecord.environment == environment, DeploymentRecord.state != "deleted"
                    )
                )
            )
        if search:
            needle = search.lower()
            description = func.lower(ModelCardRecord.card["description"].as_string())
            query = query.where(
                or_(
                    func.lower(ModelCardRecord.model_name).contains(needle, autoescape=True),
                    func.lower(ModelCardRecord.model_version).contains(needle, autoescape=True),
                    description.contains(needle, autoescape=True),
                )
            )
        if after:
            name, _, version = after.rpartition("@")
            query = query.where(
                or_(
                    ModelCardRecord.model_name > name,
                    and_(ModelCardRecord.model_name == name, ModelCardRecord.model_version > version),
                )
            )
        return self._select_models(query.limit(limit))

    def changed_since(
        self, since: datetime | tuple[datetime, str] | None, limit: int | None = None
    ) -> list[ModelRow | InvalidRow]:
        """Model versions that were registered, corrected, published or removed, oldest change first.

        A row that a long transaction wrote may appear with an earlier time than rows that were seen already:
        a reader that must miss nothing asks from some time before its last row, and tells rows that it knows
        by `(model_id, revision)`.

        Args:
            since: A moment (rows of that very moment are included); or `(updated_at, model_id)` of the last row
                that was read, to go on behind it; or None, from the beginning.
            limit: At most so many, ordered by `(updated_at, model_id)`.

        Returns:
            Rows, removed ones too; one that cannot be used is an `InvalidRow` in its place.

        Raises:
            StoreUnavailable: The database does not answer; never an empty list instead.
        """
        query = select(ModelCardRecord).order_by(ModelCardRecord.updated_at, ModelCardRecord.model_id)
        if since is not None:
            query = query.where(is_after(since, ModelCardRecord.updated_at, ModelCardRecord.model_id))
        return self._select_models(query.limit(limit))

    def list_unpublished(self, limit: int | None = None) -> list[ModelRow | InvalidRow]:
        """Model versions that are neither published nor removed, oldest change first.

        Args:
            limit: At most so many.
        """
        query = (
            select(ModelCardRecord)
            .where(ModelCardRecord.published_at.is_(None), ModelCardRecord.deleted_at.is_(None))
            .order_by(ModelCardRecord.updated_at, ModelCardRecord.model_id)
        )
        return self._select_models(query.limit(limit))

    def newest_published(self, model_name: str) -> ModelRow | None:
        """The version of a model that was published last and is not removed; None where there is none."""
        query = (
            select(ModelCardRecord)
            .where(
                ModelCardRecord.model_name == model_name,
                ModelCardRecord.published_at.is_not(None),
                ModelCardRecord.deleted_at.is_(None),
            )
            .order_by(ModelCardRecord.published_at.desc(), ModelCardRecord.model_id)
        )
        for row in self._select_models(query):
            if isinstance(row, ModelRow) and row.publication is not None:
                return row
        return None

    def publish(self, model_id: str, publication: Publication, *, revision: int | None = None) -> ModelRow:
        """Record the image of a model version. From now on the version never changes.

        Publishing it anew (a rebuilt image) gives every deployment that wants it a new revision.

        Args:
            model_id: The version.
            publication: Its image.
            revision: The row's revision that was packaged; refused where the row has changed since.

        Raises:
            CardNotFound: There is no such version, or it was removed.
            CardChanged: The card was corrected while it was packaged.
        """
        with self._database.writing() as session:
            record = session.get(ModelCardRecord, checked_uuid(model_id), with_for_update=True)
            if record is None or record.deleted_at is not None:
                raise not_found(model_id)
            if revision is not None and record.revision != revision:
                raise CardChanged(
                    f"{record.model_name}@{record.model_version} was corrected while revision {revision} was packaged.",
                    remedy=f"Package revision {record.revision}.",
                    revision=record.revision,
                )
            former = record.publication
            written = publication.model_dump(mode="json")
            if written != former:
                first = record.published_at or publication.published_at
                update_record(session, record, {"publication": written, "published_at": first})
            self._release(session, record, former)
            return model_row(record)

    def _release(self, session: Session, record: ModelCardRecord, former: Any) -> None:
        """Tell the deployments that want a version of its new image."""
        image = record.publication["image"]
        if not isinstance(former, dict):
            # Wanted before it was published: the releases know by now what they run.
            session.execute(
                update(ReleaseRecord)
                .where(ReleaseRecord.model_id == record.model_id, ReleaseRecord.image.is_(None))
                .values(image=image)
            )
        elif former.get("image") != image:
            session.execute(
                update(DeploymentRecord)
                .where(DeploymentRecord.model_id == record.model_id, DeploymentRecord.state != "deleted")
                .values(revision=DeploymentRecord.revision + 1)
            )

    def remove(self, model_id: str) -> ModelRow | InvalidRow:
        """Mark a model version as removed; again changes nothing. Its name and version stay used.

        Raises:
            CardNotFound: There is no such version.
        """
        with self._database.writing() as session:
            record = session.get(ModelCardRecord, checked_uuid(model_id), with_for_update=True)
            if record is None:
                raise not_found(model_id)
            if record.deleted_at is None:
                update_record(session, record, {"deleted_at": self._database.now(session)})
            return read_model(record)

    def _select_models(self, query: Any) -> list[ModelRow | InvalidRow]:
        with self._database.reading() as session:
            records = session.scalars(query).all()
        return self._read(records)

    def _read(self, records: Sequence[ModelCardRecord]) -> list[ModelRow | InvalidRow]:
        problems = self._slug_problems(record.model_name for record in records if record.deleted_at is None)
        return [read_model(record, problems.get(record.model_name)) for record in records]

    def _slug_problems(self, names: Iterable[str]) -> dict[str, SlugTaken]:
        """Which names may not be used. Rows that others wrote claim their slugs when they are first read."""
        with self._database.reading() as session:
            missing = names_without_slug(session, set(names))
            taken = taken_slugs(session, missing)
        free = missing - set(taken)
        if free:
            with self._database.writing() as session:
                taken |= claim_missing_slugs(session, free)
        return taken
