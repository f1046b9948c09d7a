"""Whose a slug is. A unique key decides, so that two processes cannot both win.

A slug is claimed when a model is added, or when a row that somebody else wrote is first read. It is free again
once nothing of its holder is registered or deployed.
"""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import exists, func, select, update
from sqlalchemy.orm import Session

from constellation_docker.cards.errors import SlugTaken
from constellation_docker.cards.records import insert_or_ignore
from constellation_docker.cards.slug import checked_model_name, slug_of
from constellation_docker.cards.tables import DeploymentRecord, ModelCardRecord, ModelSlugRecord

# Databases limit the parameters of one statement; above this, a whole small table is read instead.
_MAX_LISTED = 500


def claim_slug(session: Session, model_name: str) -> None:
    """Make a model's slug its own.

    Raises:
        SlugTaken: It belongs to another model that is registered or deployed.
    """
    slug = slug_of(model_name)
    session.execute(insert_or_ignore(session, ModelSlugRecord).values(slug=slug, model_name=model_name))
    # Locked, so that a second claimant waits until the first one's row is there to be seen.
    holder = session.scalar(
        select(ModelSlugRecord.model_name).where(ModelSlugRecord.slug == slug).with_for_update()
    )
    if holder == model_name:
        return
    if holder is not None and _is_in_use(session, holder):
        raise slug_taken(model_name, slug, holder)
    session.execute(update(ModelSlugRecord).where(ModelSlugRecord.slug == slug).values(model_name=model_name))


def names_without_slug(session: Session, names: Collection[str]) -> set[str]:
    """Which names have claimed no slug. Names that no model may have are left out."""
    query = select(ModelSlugRecord.model_name)
    if len(names) <= _MAX_LISTED:
        query = query.where(ModelSlugRecord.model_name.in_(names))
    missing = set(names) - set(session.scalars(query))
    return {name for name in missing if _is_model_name(name)}


def taken_slugs(session: Session, names: Collection[str]) -> dict[str, SlugTaken]:
    """Which names' slugs belong to other models that are in use."""
    taken: dict[str, SlugTaken] = {}
    if not names:
        return taken
    slugs = {name: slug_of(name) for name in names}
    query = select(ModelSlugRecord.slug, ModelSlugRecord.model_name)
    if len(names) <= _MAX_LISTED:
        query = query.where(ModelSlugRecord.slug.in_(set(slugs.values())))
    holders = {row.slug: row.model_name for row in session.execute(query)}
    for name, slug in slugs.items():
        holder = holders.get(slug)
        if holder is not None and holder != name and _is_in_use(session, holder):
            taken[name] = slug_taken(name, slug, holder)
    return taken


def claim_missing_slugs(session: Session, names: Collection[str]) -> dict[str, SlugTaken]:
    """Claim the slugs of names, the one registered first before the others; what is taken is returned."""
    ages = {
        name: (created_at, name)
        for name, created_at in session.execute(
            select(ModelCardRecord.model_name, func.min(ModelCardRecord.created_at)).group_by(
                ModelCardRecord.model_name
            )
        )
        if name in names
    }
    taken: dict[str, SlugTaken] = {}
    for name in sorted(ages, key=lambda name: ages[name]):
        try:
            claim_slug(session, name)
        except SlugTaken as error:
            taken[name] = error
    return taken


def slug_taken(model_name: str, slug: str, holder: str) -> SlugTaken:
    """The error for a name whose slug is another model's."""
    return SlugTaken(
        f"The model name {model_name} has the safe form {slug}, which belongs to {holder} already.",
        remedy=f"Choose another name: containers and URLs of {model_name} and {holder} could not be told apart.",
        model_name=model_name,
        slug=slug,
        holder=holder,
    )


def _is_in_use(session: Session, model_name: str) -> bool:
    registered = exists().where(
        ModelCardRecord.model_name == model_name, ModelCardRecord.deleted_at.is_(None)
    )
    deployed = exists().where(DeploymentRecord.model_name == model_name, DeploymentRecord.state != "deleted")
    return bool(session.scalar(select(registered | deployed)))


def _is_model_name(name: str) -> bool:
    try:
        checked_model_name(name)
    except ValueError:
        return False
    return True
