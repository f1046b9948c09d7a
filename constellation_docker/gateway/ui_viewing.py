"""What the UI shows to those who may only look: its own switches for that, so that buttons are grey and say why."""

from __future__ import annotations

import json
import re
from typing import Any

REASON = "Your key or token lets you look, and change nothing."

_ASKS = re.compile(r"\b(permissions|has\w+Permission)\b")
_FLAG = re.compile(r"has\w+Permission")


def asks_for_permissions(query: str) -> bool:
    """Whether a document asks Dagster what may be done."""
    return _ASKS.search(query) is not None


def without_permissions(content: bytes) -> bytes:
    """An answer of Dagster's GraphQL in which nothing may be done; as it is where it is no JSON."""
    try:
        answer = json.loads(content)
    except ValueError:
        return content
    waiting: list[Any] = [answer]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting += item
        elif isinstance(item, dict):
            waiting += item.values()
            if "permission" in item and "value" in item:
                item["value"] = False
                item["disabledReason"] = REASON
            item.update(
                {name: False for name, value in item.items() if value is True and _FLAG.fullmatch(name)}
            )
    return json.dumps(answer).encode()
