"""YAML for Compose files: plain data as block YAML.

PyYAML spends about half a second on a thousand services; this writes the few forms that Compose files have in a tenth
of it. Whatever is not plainly safe as a bare word is a JSON-like double-quoted string, which YAML reads the same.
"""

from __future__ import annotations

import re
from typing import Any

# Words that no YAML reader takes for anything but text: they begin with a letter, `/` or `_`, hold nothing that
# YAML gives a meaning to, and are none of the words for true, false and null.
_BARE = re.compile(r"[A-Za-z/_][A-Za-z0-9/_.@+-]*")
_RESERVED = re.compile(r"(?:y|yes|n|no|on|off|true|false|null|nan|inf)", re.IGNORECASE)
_BARE_COLON = re.compile(r"[A-Za-z/_][A-Za-z0-9/_.@+-]*(?::[A-Za-z0-9/_.@+-]+)+")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
_SPECIAL = re.compile(r'["\\\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff\ufffe\uffff]')
# A block literal keeps its text exactly if every line is printable and the first does not begin with a space.
_BLOCK = re.compile(r"[^\s\x00-\x1f\x7f-\x9f\u2028\u2029\ufeff][\t\n\x20-\x7e]*[^\s]\n")


def render_yaml(document: dict[str, Any]) -> str:
    """A document of mappings, lists, text, numbers, truths and nulls as YAML, with its keys in the order given."""
    lines: list[str] = []
    _mapping(document, "", lines)
    return "\n".join(lines) + "\n"


def _mapping(value: dict[str, Any], indent: str, lines: list[str]) -> None:
    for key, inner in value.items():
        name = _text(key)
        if isinstance(inner, dict) and inner:
            lines.append(f"{indent}{name}:")
            _mapping(inner, indent + "  ", lines)
        elif isinstance(inner, list) and inner:
            lines.append(f"{indent}{name}:")
            _sequence(inner, indent + "  ", lines)
        elif isinstance(inner, str) and "\n" in inner and _BLOCK.fullmatch(inner):
            lines.append(f"{indent}{name}: |")
            lines.extend(f"{indent}  {line}" if line else "" for line in inner[:-1].split("\n"))
        else:
            lines.append(f"{indent}{name}: {_scalar(inner)}")


def _sequence(value: list[Any], indent: str, lines: list[str]) -> None:
    for item in value:
        if isinstance(item, dict) and item:
            inner: list[str] = []
            _mapping(item, indent + "  ", inner)
            lines.append(f"{indent}- {inner[0].lstrip()}")
            lines.extend(inner[1:])
        elif isinstance(item, list) and item:
            lines.append(f"{indent}-")
            _sequence(item, indent + "  ", lines)
        else:
            lines.append(f"{indent}- {_scalar(item)}")


def _scalar(value: Any) -> str:
    if isinstance(value, str):
        return _text(value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return _number(value)
    return "{}" if isinstance(value, dict) else "[]"


def _number(value: float) -> str:
    text = repr(value)
    # YAML 1.1 reads 1e-07 as text; it wants a dot in the mantissa.
    mantissa, separator, exponent = text.partition("e")
    return f"{mantissa}.0{separator}{exponent}" if separator and "." not in mantissa else text


def _text(value: str) -> str:
    if (_BARE.fullmatch(value) and not _RESERVED.fullmatch(value)) or _BARE_COLON.fullmatch(value):
        return value
    return '"' + _SPECIAL.sub(_escaped, value) + '"'


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    return _ESCAPES.get(character) or f"\\u{ord(character):04x}"
