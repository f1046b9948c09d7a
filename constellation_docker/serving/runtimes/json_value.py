"""Turns what a model's code returns into what JSON can hold."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import decimal
import enum
import io
import math
import uuid
from collections.abc import Mapping, Set, ValuesView
from pathlib import PurePath
from typing import Any

from ..model import ModelFault

MAX_DEPTH = 64


def to_json_value(value: Any, *, where: str = "", depth: int = 0) -> Any:
    """The value as JSON can hold it.

    Numpy and torch arrays and scalars become lists and numbers, bytes become base64, images base64 of a PNG,
    pydantic models and dataclasses objects, dates, paths, UUIDs and enumerations strings or their value.

    Args:
        value: Anything.
        where: The way to it from the answer's root, for the message.
        depth: How deep it lies.

    Raises:
        ModelFault: it holds something else, NaN or infinity, or itself.
    """
    if isinstance(value, enum.Enum):
        value = value.value
    if value is None or isinstance(value, (bool, str, int)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ModelFault(f"The handler returned {value}{_at(where)}, which JSON cannot hold.")
        return value
    if depth >= MAX_DEPTH:
        raise ModelFault(
            f"The handler returned a value that holds itself or is nested over {MAX_DEPTH} deep."
        )
    if isinstance(value, Mapping):
        return {
            _key(key, where): to_json_value(item, where=f"{where}.{key}", depth=depth + 1)
            for key, item in value.items()
        }
    if isinstance(value, (list, tuple, Set, ValuesView)):
        return [
            to_json_value(item, where=f"{where}[{index}]", depth=depth + 1)
            for index, item in enumerate(value)
        ]
    simpler = _as_text(value)
    return (
        simpler
        if simpler is not None
        else to_json_value(_simplify(value, where), where=where, depth=depth + 1)
    )


def _as_text(value: Any) -> str | None:
    """What JSON holds as a string."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (PurePath, uuid.UUID)):
        return str(value)
    image = encode_image(value, "PNG")
    return base64.b64encode(image).decode() if image else None


def _simplify(value: Any, where: str) -> Any:
    """What has a plainer Python form."""
    if isinstance(value, decimal.Decimal):
        return float(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    for method in ("model_dump", "tolist", "to_dict"):
        # pydantic; numpy and torch; pandas. None of them need be installed.
        convert = getattr(value, method, None)
        if callable(convert) and not isinstance(value, type):
            return convert()
    raise ModelFault(
        f"The handler returned a {type(value).__module__}.{type(value).__qualname__}{_at(where)}, "
        "which has no JSON form."
    )


def encode_image(value: Any, kind: str) -> bytes | None:
    """A pillow image's bytes in a file format, or None where the value is no image or cannot be saved so."""
    if not (callable(getattr(value, "save", None)) and hasattr(value, "getbands")):
        return None
    out = io.BytesIO()
    try:
        value.save(out, format=kind)
    except (OSError, ValueError, KeyError):
        return None
    return out.getvalue()


def _key(key: Any, where: str) -> str:
    if isinstance(key, str):
        return key
    if key is None or isinstance(key, (bool, int, float)) or hasattr(key, "item"):
        return str(key)
    raise ModelFault(f"The handler returned an object{_at(where)} with a key that is no string.")


def _at(where: str) -> str:
    return f" at {where.lstrip('.')[:120]}" if where else ""
