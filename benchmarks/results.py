"""`benchmarks/RESULTS.md`: one section for each benchmark, replaced whenever that benchmark runs again."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

RESULTS: Final = Path(__file__).with_name("RESULTS.md")
HEAD: Final = """\
# Measured

Each section is written by the benchmark that it names, in one run on one machine. Read the ratios; the seconds are
that machine's.
"""


def render_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table; every column but the first is aligned to the right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines) + "\n"


def describe_machine(*facts: str, now: datetime | None = None) -> str:
    """One sentence on when and on what something was measured.

    Args:
        facts: What else matters, such as the engine's version.
        now: The time; None: the present one.
    """
    when = (now or datetime.now(UTC)).strftime("%Y-%m-%d")
    parts = [
        f"{os.cpu_count()} cores ({_processor()})",
        *facts,
        f"load before the run {os.getloadavg()[0]:.1f}",
    ]
    return f"Measured {when}: {', '.join(parts)}.\n"


def replace_section(document: str, title: str, body: str) -> str:
    """The document with the section of that title replaced, or added at its end.

    Args:
        document: The whole text, or an empty one.
        title: The section's title, without the number signs.
        body: Its text; headings in it are of level 3 and below.
    """
    section = f"## {title}\n\n{body.strip()}\n"
    found = re.search(rf"^## {re.escape(title)}\n.*?(?=^## |\Z)", document, flags=re.MULTILINE | re.DOTALL)
    if found:
        before, after = document[: found.start()], document[found.end() :]
        return f"{before}{section}{chr(10) + after if after else ''}"
    return f"{(document or HEAD).rstrip()}\n\n{section}"


def record_section(title: str, body: str, *, path: Path = RESULTS) -> None:
    """Write a section into the results, in place of an older one of the same title."""
    document = path.read_text(encoding="utf-8") if path.exists() else ""
    part = path.with_suffix(".part")
    part.write_text(replace_section(document, title, body), encoding="utf-8")
    part.replace(path)


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return "unknown processor"
    found = re.search(r"^model name\s*:\s*(.+)$", text, flags=re.MULTILINE)
    return found[1].strip() if found else "unknown processor"
