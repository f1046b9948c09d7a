"""Model cards in files: YAML, JSON, a Hugging Face README.md, or a directory that holds one of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from constellation_docker.cards.canonical_json import checked_json
from constellation_docker.cards.errors import InvalidCard
from constellation_docker.cards.front_matter import MAX_CARD_CHARACTERS, read_yaml
from constellation_docker.cards.registration import given_in_readme, given_in_registration
from constellation_docker.errors import InvalidInput

# In the order in which a directory is searched.
CARD_NAMES = ("model-card.yaml", "model-card.yml", "model-card.json", "README.md")


def read_card(path: Path) -> tuple[dict[str, Any], str]:
    """What a file says of a model, by field, and the file's name for messages.

    A relative `repo_url` (`.` or `./…`) is a directory beside the file. A README that names no `repo_url`
    describes the directory in which it lies.

    Args:
        path: A `.yaml`, `.yml`, `.json` or `.md` file, or a directory that holds one of `CARD_NAMES`.

    Raises:
        InvalidCard: The file is not readable as a card.
        InvalidInput: There is no such file, or it is of another kind.
    """
    path = _card_path(path)
    text = _text_of(path)
    suffix = path.suffix.lower()
    if suffix in {".md", ".markdown"}:
        given = given_in_readme(text, what=path.name)
        given.setdefault("repo_url", ".")
    else:
        body = (
            _json(text, path) if suffix == ".json" else read_yaml(text.removeprefix("\ufeff"), what=path.name)
        )
        given = given_in_registration(body, what=path.name)
    address = given.get("repo_url")
    if isinstance(address, str) and (address in {".", ".."} or address.startswith(("./", "../"))):
        given["repo_url"] = (path.parent / address).resolve().as_uri()
    return given, path.name


def _card_path(path: Path) -> Path:
    if path.is_dir():
        for name in CARD_NAMES:
            if (path / name).is_file():
                return path / name
        raise InvalidInput(
            f"The directory {path} holds no model card.",
            remedy=f"Put one of {', '.join(CARD_NAMES)} into it, or name the file.",
        )
    if not path.is_file():
        raise InvalidInput(f"There is no file {path}.", remedy="Name a model card's file or its directory.")
    if path.suffix.lower() not in {".yaml", ".yml", ".json", ".md", ".markdown"}:
        raise InvalidInput(
            f"{path} is not a model card: its name ends in {path.suffix or 'nothing'}.",
            remedy="Give a .yaml, .json or .md file.",
        )
    return path


def _text_of(path: Path) -> str:
    try:
        if path.stat().st_size > 4 * MAX_CARD_CHARACTERS:
            raise InvalidCard(
                f"{path.name} is too large for a model card.", remedy="Keep it under a million characters."
            )
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InvalidCard(
            f"{path.name} cannot be read: it is not UTF-8 text (byte {error.start}).",
            remedy="Save it as UTF-8.",
        ) from error
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be read: {error.strerror}.", remedy="Check the file and its rights."
        ) from error


def _json(text: str, path: Path) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in items]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the key {name!r} is given twice")
        return dict(items)

    try:
        return checked_json(json.loads(text.removeprefix("\ufeff"), object_pairs_hook=pairs))
    except (ValueError, RecursionError) as error:
        problem = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise InvalidCard(f"{path.name} cannot be read: {problem}.", remedy="Correct the JSON.") from error
