"""Reads a repository's Python before anything is built from it. Nothing of it is executed."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from constellation_docker.packaging.child_process import (
    ChildTimedOut,
    ChildWroteTooMuch,
    child_environment,
    run_child,
)
from constellation_docker.packaging.source import Source

_HANDLER = "handler.py"
_TIMEOUT_SECONDS = 180.0
_MAX_FILE_BYTES = 8 * 1024 * 1024


class CodeFinding(BaseModel):
    """Something in a Python file that would fail when it is served.

    Attributes:
        path: The file.
        line: The line; 0 where it concerns the whole file.
        rule: `syntax` or `handler`.
        message: What is wrong.
    """

    model_config = ConfigDict(frozen=True)

    path: str
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}" if self.line else f"{self.path}: {self.message}"


def inspect_code(source: Source, *, python_version: str | None = None) -> list[CodeFinding]:
    """Compile every Python file of a repository, and check the class of its handler.

    A `handler.py` at the top must have a class `EndpointHandler` with `__init__(self, path="")` and
    `__call__(self, data)`, sync or async (Hugging Face, "Create custom Inference Handler").

    Args:
        source: The repository.
        python_version: The image's Python, such as `3.11` (None: this process's own). Syntax newer than this
            process's own Python cannot be judged and counts as right.

    Returns:
        What is wrong, in the order of the files; empty where nothing is.
    """
    own = sys.version_info[:2]
    wanted = tuple(int(part) for part in python_version.split(".")[:2]) if python_version else own
    paths = [file.path for file in source.files if file.path.endswith(".py") and file.mode != "link"]
    sizes = {file.path: file.size_bytes for file in source.files}
    findings = [
        CodeFinding(path=path, line=0, rule="syntax", message=f"it has more than {_MAX_FILE_BYTES:,} bytes")
        for path in paths
        if sizes[path] > _MAX_FILE_BYTES
    ]
    pending = [path for path in paths if sizes[path] <= _MAX_FILE_BYTES]
    while pending:
        found, unread = _read(source.path, pending, min(wanted, own))
        findings += found
        pending = unread
    if wanted > own:
        findings = [finding for finding in findings if finding.rule != "syntax"]
    return findings


def _read(root: Path, paths: list[str], version: tuple[int, ...]) -> tuple[list[CodeFinding], list[str]]:
    """What a reader found, and the files that it did not come to; the one that killed it is a finding."""
    request = {"root": str(root), "paths": paths, "feature_version": version, "handler": _HANDLER}
    with tempfile.TemporaryDirectory(prefix="constellation-code-") as place:
        output = b""
        try:
            finished = run_child(
                [sys.executable, "-I", "-S", str(Path(__file__).with_name("code_reader.py"))],
                environment=child_environment(Path(place), {}),
                directory=Path(place),
                deadline=time.monotonic() + _TIMEOUT_SECONDS,
                stdin=json.dumps(request).encode(),
            )
            output = finished.stdout
        except (ChildTimedOut, ChildWroteTooMuch):
            return [
                CodeFinding(path=paths[0], line=0, rule="syntax", message="the compiler does not end on it")
            ], []
    findings, current, is_done = [], paths[0], False
    for line in output.decode().splitlines():
        record = json.loads(line)
        is_done = is_done or "done" in record
        if record.get("rule") == "reading":
            current = record["path"]
        elif "rule" in record:
            findings.append(CodeFinding.model_validate(record))
    if is_done:
        return findings, []
    findings.append(CodeFinding(path=current, line=0, rule="syntax", message="it ends the compiler"))
    return findings, paths[paths.index(current) + 1 :]
