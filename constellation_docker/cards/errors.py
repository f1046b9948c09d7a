"""What can go wrong with cards and their store."""

from __future__ import annotations

from constellation_docker.errors import ConstellationError, InvalidInput


class InvalidCard(InvalidInput):
    """A model card (a file, a request's body, a row, a repository's README) cannot be used as it is.

    `details["problems"]` lists every problem as `{"field": "constellation.port", "problem": "…"}`.
    """

    code = "invalid_card"


class SlugTaken(InvalidInput):
    """Another model's name has the same safe form, so the two would share containers and URLs."""

    code = "slug_taken"


class VersionPublished(InvalidInput):
    """The version is published, and a published version never changes.

    `details["differs"]` names the fields in which the refused card differs.
    """

    code = "version_published"


class ModelIdTaken(InvalidInput):
    """The given `model_id` belongs to another model version."""

    code = "model_id_taken"


class CardChanged(ConstellationError):
    """The row was corrected while somebody worked from its former revision."""

    code = "card_changed"


class CardNotFound(ConstellationError):
    """There is no such model version."""

    code = "card_not_found"


class DeploymentNotFound(ConstellationError):
    """Nothing was ever wanted of this model in this environment."""

    code = "deployment_not_found"


class ReleaseNotFound(ConstellationError):
    """The history has no such revision."""

    code = "release_not_found"


class StoreUnavailable(ConstellationError):
    """The database does not answer. Never to be taken for an empty table."""

    code = "store_unavailable"
    is_transient = True


class StoreRefused(ConstellationError):
    """The database answers, but trying again will not help: wrong password, wrong schema, no such database."""

    code = "store_refused"


class LeaseHeld(ConstellationError):
    """Somebody else works on this deployment now. The same call succeeds later."""

    code = "lease_held"
    is_transient = True


class LeaseLost(ConstellationError):
    """The lease ran out and another holder has it: stop, whatever you are doing."""

    code = "lease_lost"
