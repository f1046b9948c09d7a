"""The model card: what is known of one model version."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field, JsonValue, PrivateAttr, ValidationError, model_validator

from constellation_docker.cards.canonical_json import digest_of
from constellation_docker.cards.card_fields import (
    Dependency,
    GitRevision,
    Licence,
    RepositoryAddress,
    Task,
    Word,
    Words,
)
from constellation_docker.cards.publication import Publication
from constellation_docker.cards.registration import (
    FRONT_MATTER_FIELDS,
    IDENTITY_FIELDS,
    PROSE_FIELDS,
    given_in_readme,
    given_in_registration,
    merged,
    titled,
)
from constellation_docker.cards.serving_options import ServingOptions
from constellation_docker.cards.slug import checked_model_name, checked_version, image_tag_of, slug_of
from constellation_docker.cards.strict_record import StrictRecord, invalid_card, problems_of
from constellation_docker.cards.widget import WidgetExample

_NAMELESS = "Give its name and version: in the registration, in a README's `constellation:` block, or with --name and --version."


class ModelCard(StrictRecord):
    """One model version: where it comes from, what it is, and how it is served.

    Make one with `from_registration`, `from_file` or `from_row`; it is valid once it exists.
    """

    model_name: Annotated[str, AfterValidator(checked_model_name)] = Field(
        description="Name, such as acme/sentiment."
    )
    model_version: Annotated[str, AfterValidator(checked_version)] = Field(
        description="Version, such as 1.0.0; in YAML in quotes."
    )
    repo_url: RepositoryAddress = Field(
        description="Git address, Hugging Face id (hf://owner/name) or directory (file:///…) of the repository."
    )
    branch: GitRevision | None = Field(
        None, description="Branch, tag or commit. Default: the repository's default branch."
    )
    description: str = Field("", description="What the model does, in Markdown.")
    data_used: str = Field("", description="What it was trained on, in Markdown.")
    dependencies: tuple[Dependency, ...] = Field(
        (), description="Python requirements, beside those in the repository."
    )
    task: Task | None = Field(None, alias="pipeline_tag", description="The task; one of the Hub's.")
    library_name: Word | None = Field(None, description="Library, such as transformers.")
    license: Licence | None = Field(None, description="Licence, such as apache-2.0; of several, all hold.")
    license_name: Word | None = Field(None, description="Name of a licence of one's own (license: other).")
    license_link: Word | None = Field(None, description="Address of a licence of one's own.")
    language: Words = Field((), description="Language codes, such as en.")
    tags: Words = Field((), description="Free labels.")
    base_model: Words = Field((), description="Hub ids of the models from which this one derives.")
    datasets: Words = Field((), description="Hub ids of data sets.")
    metrics: Words = Field((), description="Names of metrics.")
    widget: tuple[WidgetExample, ...] = Field(
        (), description="Example requests. They are sent to the built image before it may be published."
    )
    serving: ServingOptions = Field(
        ServingOptions(), alias="constellation", description="How it is packaged, served and rolled out."
    )
    front_matter: dict[str, JsonValue] = Field(
        default_factory=dict, description="Any other Hugging Face metadata; kept and rendered as it is."
    )
    body: str = Field("", description="The card's Markdown. Default: that of the repository's README.md.")

    _notes: tuple[str, ...] = PrivateAttr(())

    @model_validator(mode="after")
    def _front_matter_is_foreign(self) -> Self:
        for name in self.front_matter:
            if name in (*FRONT_MATTER_FIELDS, "constellation"):
                raise ValueError(f"front_matter.{name} must be given as {name}, outside front_matter")
        problem = _model_index_problem(self.front_matter)
        if problem:
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _examples_fit_the_task(self) -> Self:
        for number, example in enumerate(self.widget, start=1):
            problem = example.misfit(self.task) if self.task else None
            if problem:
                raise ValueError(f"widget example {number} does not fit {self.task}: it {problem}")
        return self

    @cached_property
    def slug(self) -> str:
        """The name's safe form for containers, services, DNS and URLs."""
        return slug_of(self.model_name)

    @property
    def key(self) -> str:
        """`name@version`: the Dagster partition key."""
        return f"{self.model_name}@{self.model_version}"

    @property
    def image_tag(self) -> str:
        """The version as an image tag."""
        return image_tag_of(self.model_version)

    @cached_property
    def digest(self) -> str:
        """`sha256:…` of the canonical JSON of all that the card says."""
        return digest_of(self.to_registration())

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out of the repository's own card, and why; one sentence each."""
        return self._notes

    def to_registration(self) -> dict[str, Any]:
        """The card in the form of the REST body: what its writer gave, without our defaults."""
        card = self.model_dump(
            mode="json", by_alias=True, exclude_unset=True, exclude={*IDENTITY_FIELDS, "serving"}
        )
        for name in PROSE_FIELDS:
            card.setdefault(name, [] if name == "dependencies" else "")
        for name in ("front_matter", "body"):
            if not card.get(name):
                card.pop(name, None)
        serving = self.serving.written()
        if serving:
            card["constellation"] = serving
        return {
            "model_name": self.model_name,
            "model_version": self.model_version,
            "repo_url": self.repo_url,
            "branch": self.branch,
            "model_card": card,
        }

    @classmethod
    def from_registration(cls, body: Any) -> Self:
        """The card in a registration: the REST body, or a YAML or JSON file of the same shape.

        Args:
            body: `{model_name, model_version, repo_url, branch?, model_card: {description, data_used,
                dependencies, …}}`; `model_card` may hold any field of a card.

        Raises:
            InvalidCard: A field is unknown, missing or wrong. Every problem is in `details["problems"]`.
        """
        return cls._validated(given_in_registration(body), "The model card")

    @classmethod
    def from_row(
        cls, *, model_name: str, model_version: str, repo_url: str, branch: str | None, card: Any
    ) -> Self:
        """The card in a row of `model_cards`; its `card` column has the form of the REST body's `model_card`."""
        return cls.from_registration(
            {
                "model_name": model_name,
                "model_version": model_version,
                "repo_url": repo_url,
                "branch": branch,
                "model_card": card,
            }
        )

    @classmethod
    def from_readme(cls, text: str, *, what: str = "README.md", **overrides: Any) -> Self:
        """The card in a Hugging Face README.

        Identity and prose come from the `constellation:` block, or from the arguments, which win.

        Args:
            text: The whole README.
            what: Its name, for messages.
            overrides: Any of model_name, model_version, repo_url, branch; None means not given.

        Raises:
            InvalidCard: The front matter is malformed, or a field is unknown, missing or wrong.
        """
        given = given_in_readme(text, what=what) | {
            name: value for name, value in overrides.items() if value is not None
        }
        return cls._validated(given, what)

    @classmethod
    def from_file(cls, path: str | Path, **overrides: Any) -> Self:
        """The card in a YAML, JSON or README file, or in a directory that holds one.

        See `constellation_docker.cards.card_file.read_card`, which this calls.
        """
        from constellation_docker.cards.card_file import read_card

        path = Path(path)
        given, name = read_card(path)
        given |= {field: value for field, value in overrides.items() if value is not None}
        return cls._validated(given, name)

    def merged_with(self, readme: str) -> Self:
        """This card, completed from the repository's own README: what the row gave wins, field by field.

        Widget examples and evaluation results of the README that cannot be used are left out, and named in
        `notes`: nobody who registers a model can correct somebody else's repository.

        Args:
            readme: The text of the repository's README.md.

        Raises:
            InvalidCard: The README's front matter is malformed, or a field of it that the row does not give
                is wrong.
        """
        theirs = given_in_readme(readme, what=f"README.md in the repository of {self.key}")
        ours = self._given()
        serving = merged(theirs.pop("constellation", {}), self.serving.written())
        unknown_metadata = {**theirs.pop("front_matter", {}), **self.front_matter}
        together = {**theirs, **ours}
        notes: list[str] = []
        if _model_index_problem(unknown_metadata):
            unknown_metadata = {key: value for key, value in unknown_metadata.items() if key != "model-index"}
            notes.append("The repository's model-index (evaluation results) is malformed and was left out.")
        if "widget" not in ours:
            kept, dropped = _usable_examples(theirs.get("widget", []), together.get("pipeline_tag"))
            together["widget"] = kept or None
            notes += dropped
        together |= {"front_matter": unknown_metadata, "constellation": serving}
        card = self._validated(together, "The model card, completed from its repository's README.md,")
        card._notes = tuple(notes)
        return card

    def render(self, learned: Publication | Mapping[str, Any] | None = None) -> str:
        """The maintained card: front matter, Markdown, and what packaging learned.

        Args:
            learned: A publication, or any facts to show, by name (JSON values).

        Returns:
            A README that the Hub reads as its own and that gives this card when it is read back.
        """
        from constellation_docker.cards.rendering import render_card

        return render_card(self, learned)

    def _given(self) -> dict[str, Any]:
        """What the card's writer gave, by field; empty prose counts as not given."""
        registration = self.to_registration()
        card: dict[str, Any] = registration.pop("model_card")
        card.pop("constellation", None)
        card.pop("front_matter", None)
        prose = {name: card.pop(name) for name in PROSE_FIELDS}
        return registration | card | {name: value for name, value in prose.items() if value}

    @classmethod
    def _validated(cls, given: Mapping[str, Any], what: str) -> Self:
        given = {name: value for name, value in given.items() if value is not None}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            problems = problems_of(error)
            is_nameless = any(problem["field"] in {"model_name", "model_version"} for problem in problems)
            raise invalid_card(
                titled(given, what),
                problems,
                remedy=_NAMELESS if is_nameless else "",
                model_name=given.get("model_name"),
                model_version=given.get("model_version"),
            ) from None


def _model_index_problem(front_matter: Mapping[str, Any]) -> str | None:
    """Why `ModelCardData` would refuse the evaluation results, if it would."""
    if not front_matter.get("model-index"):
        return None
    from huggingface_hub.repocard_data import model_index_to_eval_results

    try:
        model_index_to_eval_results(front_matter["model-index"])
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        return f"front_matter.model-index is malformed ({type(error).__name__}: {error})"
    return None


def _usable_examples(entries: Any, task: Any) -> tuple[list[Any], list[str]]:
    if not isinstance(entries, list):
        return [], ["The repository's widget is not a list and was left out."]
    kept, notes = [], []
    for number, entry in enumerate(entries, start=1):
        try:
            problem = WidgetExample.model_validate(entry).misfit(task) if isinstance(task, str) else None
        except ValidationError as error:
            problem = problems_of(error)[0]["problem"]
        if problem:
            notes.append(f"Widget example {number} of the repository was left out: {problem}.")
        else:
            kept.append(entry)
    return kept, notes
