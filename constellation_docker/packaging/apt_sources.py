"""Where Debian packages come from: the settings' mirror, this machine's own sources, or Debian's well-known mirror."""

from __future__ import annotations

import contextlib
import platform
import re
from collections.abc import Mapping
from pathlib import Path


def plan_sources(
    suite: str, mirror: str | None, machine_suite: str | None, apt_sources: Mapping[str, str]
) -> str:
    """The apt sources to take packages from, one `deb …` a line; empty for mmdebstrap's own (deb.debian.org).

    Args:
        suite: Debian suite wanted.
        mirror: A mirror given by the settings.
        machine_suite: The suite of this machine, where it is Debian.
        apt_sources: Contents of this machine's apt source files, by file name.
    """
    if mirror:
        url = mirror.rstrip("/")
        return f"deb {url} {suite} main\ndeb {url} {suite}-updates main\n"
    if machine_suite is None:
        return ""
    found: list[str] = []
    for name, text in sorted(apt_sources.items()):
        entries = _deb822_entries(text) if name.endswith(".sources") else _one_line_entries(text)
        for options, url, suites, components in entries:
            # Sources of other makers name other suites, or no `main`.
            for listed in suites:
                base, dash, pocket = listed.partition("-")
                if base == machine_suite and "main" in components and pocket in {"", "updates", "security"}:
                    line = f"deb {options}{url} {suite}{dash}{pocket} main"
                    if line not in found:
                        found.append(line)
    has_suite = any(line.endswith(f" {suite} main") for line in found)
    return "".join(f"{line}\n" for line in found) if has_suite else ""


_Entry = tuple[str, str, list[str], list[str]]


def _one_line_entries(text: str) -> list[_Entry]:
    entries: list[_Entry] = []
    for line in text.splitlines():
        match = re.match(r"^\s*deb\s+(\[[^\]]*\]\s+)?(\S+)\s+(\S+)\s+(.+?)\s*(#.*)?$", line)
        if match:
            entries.append((_trust(match[1] or ""), match[2], [match[3]], match[4].split()))
    return entries


def _deb822_entries(text: str) -> list[_Entry]:
    entries: list[_Entry] = []
    for paragraph in re.split(r"\n\s*\n", text):
        fields: dict[str, str] = {}
        for line in paragraph.splitlines():
            name, colon, value = line.partition(":")
            if colon and not line.startswith((" ", "#")):
                fields[name.strip().lower()] = value.strip()
        if "deb" in fields.get("types", "").split() and fields.get("enabled", "yes") != "no":
            key = fields.get("signed-by", "")
            option = f"[signed-by={key}] " if key.startswith("/") else ""
            for url in fields.get("uris", "").split():
                entries.append(
                    (option, url, fields.get("suites", "").split(), fields.get("components", "").split())
                )
    return entries


def _trust(options: str) -> str:
    kept = re.findall(r"(?:signed-by|trusted)=\S+", options.strip().strip("[]"))
    return f"[{' '.join(kept)}] " if kept else ""


def read_machine_sources() -> tuple[str | None, dict[str, str]]:
    """This machine's Debian suite (None where it is no Debian) and the contents of its apt source files, by name."""
    facts: Mapping[str, str] = {}
    with contextlib.suppress(OSError):
        facts = platform.freedesktop_os_release()
    if facts.get("ID") != "debian":
        return None, {}
    files = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    texts = {
        str(file): file.read_text(encoding="utf-8", errors="replace") for file in files if file.is_file()
    }
    return facts.get("VERSION_CODENAME"), texts
