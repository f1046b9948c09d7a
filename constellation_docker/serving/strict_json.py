"""JSON from strangers: strict where Python's parser is generous, and bounded in what it may cost."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from .model import BadRequest, TooLarge

MAX_DEPTH = 64
MAX_CONTAINERS = 500_000
"""An empty list costs 64 bytes of memory and two of body, so containers are counted before parsing."""
MAX_ITEMS = 4_000_000
MAX_INTEGER = 2**64
"""Larger integers fit into no tensor, and fail in odd places later."""

_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_LONG_NUMBER = re.compile(rb"[0-9]{19}|[0-9.][eE]\+?[0-9]{3}")
_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_json(body: bytes | bytearray | memoryview, *, max_depth: int = MAX_DEPTH) -> Any:
    """Parse a request body as strict JSON (RFC 8259).

    Refused beside what is not JSON: bytes that are not UTF-8, NaN and infinities (also as overflowing
    numbers such as 1e999), integers beyond 64 bits, halves of surrogate pairs, and nesting deeper than
    `max_depth`. A byte-order mark is skipped.

    Raises:
        BadRequest: with one sentence that says what is wrong and where.
        TooLarge: more values than any request needs.
    """
    raw = bytes(body)
    if not raw.strip():
        raise BadRequest("the request body is empty; send a JSON object")
    containers = raw.count(b"[") + raw.count(b"{")
    if containers > MAX_CONTAINERS or raw.count(b",") > MAX_ITEMS:
        raise TooLarge(f"the JSON holds more than {MAX_CONTAINERS} lists and objects or {MAX_ITEMS} values")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        raise BadRequest(f"the body is not UTF-8: invalid byte at offset {problem.start}") from None
    is_plain = _LONG_NUMBER.search(raw) is None
    try:
        value = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_int=None if is_plain else _parse_integer,
            parse_float=None if is_plain else _parse_number,
        )
    except RecursionError:
        raise BadRequest(f"the JSON is nested deeper than {max_depth} levels") from None
    except json.JSONDecodeError as problem:
        raise BadRequest(f"the body is not valid JSON: {problem.msg} at character {problem.pos}") from None
    if containers > max_depth and _is_deeper(raw, value, max_depth):
        raise BadRequest(f"the JSON is nested deeper than {max_depth} levels")
    if _SURROGATE_ESCAPE.search(raw):
        _refuse_lone_surrogates(value)
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise BadRequest(f"{name} is not valid JSON; numbers must be finite")


def _parse_integer(digits: str) -> int:
    if len(digits) > 21 or abs(int(digits)) >= MAX_INTEGER:
        raise BadRequest("the JSON holds an integer that does not fit into 64 bits")
    return int(digits)


def _parse_number(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise BadRequest("the JSON holds a number that is too large; numbers must be finite")
    return number


def _is_deeper(raw: bytes, value: Any, max_depth: int) -> bool:
    """Removing `[]` and `{}` pairs from the brackets alone takes one round a level, at C's speed.

    Brackets inside strings may leave a rest; only then the parsed value is walked.
    """
    brackets = raw.translate(None, _NOT_BRACKETS)
    for _ in range(max_depth):
        shorter = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if not shorter:
            return False
        if len(shorter) == len(brackets):
            break
        brackets = shorter
    level = [value]
    for _ in range(max_depth):
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, (dict, list))
        ]
        if not level:
            return False
    return True


def _refuse_lone_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadRequest("the JSON holds half of a surrogate pair, which is not a character") from None
