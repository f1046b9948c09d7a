"""Reading and writing the YAML block at the top of a Hugging Face `README.md`.

YAML is read by the rules of YAML 1.2, as the Hub reads it: `language: no` is the text "no", and `010` is ten.
Dates stay text. What `yaml.safe_load` lets pass (keys given twice) is refused.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from typing import Any

import yaml

from constellation_docker.cards.canonical_json import checked_json, checked_text
from constellation_docker.cards.errors import InvalidCard

MAX_CARD_CHARACTERS = 1_000_000

# Everything between these is ours: it is written anew on each rendering and never read back.
MAINTAINED_START = (
    "<!-- constellation:maintained — written by constellation_docker, replaced on every release -->"
)
MAINTAINED_END = "<!-- constellation:end -->"

_OPENING = re.compile(r"\s*---[ \t]*(?:\r\n|\r|\n)")
_CLOSING = re.compile(r"^---[ \t]*(?:\r\n|\r|\n|\Z)", re.MULTILINE)
_MAINTAINED = re.compile(
    rf"\s*{re.escape(MAINTAINED_START)}.*?{re.escape(MAINTAINED_END)}[ \t]*\n?", re.DOTALL
)


class _CardLoader(yaml.SafeLoader):
    """YAML 1.2 core schema, and no key twice."""

    # A list of our own per first character, so that PyYAML's class stays as it is.
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - PyYAML's own protocol

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a list or mapping is used as a key", key_node.start_mark
                )
            key = (key_node.tag, key_node.value)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key_node.value!r} is given twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


class _CardDumper(yaml.SafeDumper):
    """Puts every text in quotes that YAML 1.1 or YAML 1.2 would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # PyYAML folds the line breaks that only Unicode knows into spaces, unless they are escaped.
    style = '"' if re.search("[\r\x85\u2028\u2029]", text) else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_CardDumper.add_representer(str, _represent_text)

_CORE_SCHEMA: tuple[tuple[str, str, list[str]], ...] = (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"^[-+]?[0-9]+$", list("-+0123456789")),
    ("float", r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?$", list("-+0123456789.")),
)
for _kind, _pattern, _first in _CORE_SCHEMA:
    _CardLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_pattern), _first)
    _CardDumper.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_pattern), _first)


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(str(loader.construct_scalar(node)), 10)


def _construct_float(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> float:
    return float(str(loader.construct_scalar(node)))


_CardLoader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_CardLoader.add_constructor("tag:yaml.org,2002:float", _construct_float)


def read_yaml(text: str, *, what: str) -> Any:
    """YAML as plain JSON values.

    Args:
        text: The YAML.
        what: What it is, for messages: a file's name, `README.md`.

    Raises:
        InvalidCard: It is not YAML, gives a key twice, or holds what JSON cannot.
    """
    if len(text) > MAX_CARD_CHARACTERS:
        raise _unreadable(what, f"it is longer than {MAX_CARD_CHARACTERS} characters")
    try:
        # _CardLoader is a SafeLoader: it makes plain values only.
        return checked_json(yaml.load(text, Loader=_CardLoader))  # noqa: S506
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise _unreadable(what, f"{error.problem or 'the YAML is malformed'}{where}") from error
    except yaml.YAMLError as error:
        raise _unreadable(what, " ".join(str(error).split())) from error
    except RecursionError:
        raise _unreadable(what, "it is nested too deeply") from None
    except ValueError as error:
        raise _unreadable(what, str(error)) from error


def _unreadable(what: str, problem: str) -> InvalidCard:
    return InvalidCard(
        f"{what} cannot be read: {problem}.",
        remedy="Correct the YAML; docs/model-cards.md has examples.",
        problems=[{"field": what, "problem": problem}],
    )


def split_readme(text: str, *, what: str = "README.md") -> tuple[dict[str, Any], str]:
    """A README's front matter and its Markdown.

    A byte-order mark and any line endings are accepted; a README without front matter gives an empty one.
    The part that we maintain ourselves is left out of the Markdown.

    Args:
        text: The whole file.
        what: What it is, for messages.

    Returns:
        The front matter as JSON values in the writer's order, and the Markdown with `\\n` line endings.

    Raises:
        InvalidCard: The front matter is not closed, is not YAML, or is not a mapping.
    """
    block, markdown = split_front_matter(text, what=what)
    if block is None:
        return {}, _markdown(markdown, what)
    data = read_yaml(block, what=f"The front matter of {what}")
    if data is None:
        data = {}
    if not isinstance(data, dict):
        raise _unreadable(f"The front matter of {what}", "it must be a mapping of names to values")
    return data, _markdown(markdown, what)


def split_front_matter(text: str, *, what: str = "README.md") -> tuple[str | None, str]:
    """The YAML between a README's `---` lines (None where it has none), and what follows it, as written.

    Raises:
        InvalidCard: The front matter is not closed.
    """
    text = text.removeprefix("\ufeff")
    opening = _OPENING.match(text)
    if not opening:
        return None, text
    closing = _CLOSING.search(text, opening.end())
    if not closing:
        raise _unreadable(what, "its front matter begins with '---' but no second '---' line closes it")
    return text[opening.end() : closing.start()], text[closing.end() :]


def _markdown(text: str, what: str) -> str:
    try:
        checked_text(text)
    except ValueError as error:
        raise _unreadable(what, str(error)) from error
    unix = text.replace("\r\n", "\n").replace("\r", "\n")
    return _MAINTAINED.sub("\n", unix).strip("\n")


def render_front_matter(data: Mapping[str, Any]) -> str:
    """The YAML block for a front matter, with its `---` lines, in the given order.

    Readers of YAML 1.1 (PyYAML) and of YAML 1.2 (the Hub) read the same values from it.
    """
    if not data:
        return ""
    text = yaml.dump(
        dict(data),
        Dumper=_CardDumper,
        sort_keys=False,
        allow_unicode=True,
        width=100,
        default_flow_style=False,
    )
    return f"---\n{text}---\n"
