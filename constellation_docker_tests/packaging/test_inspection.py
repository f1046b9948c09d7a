"""Foreign Python is read, never run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from constellation_docker.packaging.inspection import CodeFinding, inspect_code
from constellation_docker.packaging.source import fetch_source
from constellation_docker.settings import SourceSettings

HANDLER = 'class EndpointHandler:\n    def __init__(self, path=""):\n        pass\n    def __call__(self, data):\n        return data\n'


def inspect(
    tmp_path: Path, files: Mapping[str, str | bytes], python_version: str | None = "3.11"
) -> list[CodeFinding]:
    directory = tmp_path / "model"
    for name, content in {"README.md": "x", **files}.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    source = fetch_source(
        f"file://{directory}", None, settings=SourceSettings(allowed_schemes=("file",)), ca_bundle=None,
        store=tmp_path / "store", model="m@1", on_line=lambda line: None,
    )  # fmt: skip
    return inspect_code(source, python_version=python_version)


def test_python_that_compiles_has_no_findings(tmp_path: Path) -> None:
    files = {
        "a.py": "import absent_module\n",
        "pkg/b.py": "# coding: latin-1\nx = '\xe9'\n".encode("latin-1"),
    }
    assert inspect(tmp_path, {**files, "handler.py": HANDLER, "empty.py": ""}) == []


def test_a_syntax_error_names_file_and_line(tmp_path: Path) -> None:
    findings = inspect(
        tmp_path, {"pkg/train.py": "x = 1\nprint 'old'\n", "b.py": "return 3\n", "fine.py": "x = 1\n"}
    )
    assert [(finding.path, finding.line) for finding in findings] == [("b.py", 1), ("pkg/train.py", 2)]
    assert str(findings[1]).startswith("pkg/train.py:2: Missing parentheses")


def test_syntax_newer_than_the_images_python_is_found(tmp_path: Path) -> None:
    files = {"a.py": "match 1:\n    case 1:\n        pass\n"}
    assert inspect(tmp_path, files, "3.11") == []
    assert [finding.path for finding in inspect(tmp_path, files, "3.9")] == ["a.py"]


def test_nothing_is_executed(tmp_path: Path) -> None:
    proof = tmp_path / "proof"
    write = f"open({str(proof)!r}, 'w')\n"
    inspect(
        tmp_path,
        {"handler.py": write + HANDLER, "sitecustomize.py": write, "json.py": write, "ast.py": write},
    )
    assert not proof.exists()


@pytest.mark.parametrize(
    "source",
    [
        b"x = " + b"(" * 100_000,
        b"x = " + b"-" * 1_000_000 + b"1",
        b"x = " + b"+".join([b"1"] * 200_000),
        b"x = " + b"a." * 200_000 + b"b",
        b"\0\0\0",
        b"\xff\xfe\xfa",
        b"# coding: no-such-coding\n",
        b"x = 10 ** 10 ** 10\n" * 1000 + b"(",
    ],
)
def test_source_made_to_break_the_compiler_is_a_finding_and_no_more(tmp_path: Path, source: bytes) -> None:
    findings = inspect(tmp_path, {"evil.py": source, "fine.py": "x = 1\n", "z.py": "x ="})
    assert [finding.path for finding in findings] == ["evil.py", "z.py"]


@pytest.mark.parametrize(
    "source",
    [
        HANDLER,
        HANDLER.replace("def __call__", "async def __call__"),
        HANDLER.replace('path=""', "model_dir"),
        HANDLER.replace('path=""', "*args, **kwargs"),
        HANDLER.replace("self, data", "self, data, extra=None"),
        "try:\n    import absent\nexcept ImportError:\n    absent = None\n" + HANDLER,
        "if True:\n    class EndpointHandler(dict):\n        pass\n",
        "from serving import EndpointHandler\n",
        "from serving import *\n",
        "class Mine:\n    pass\nEndpointHandler = Mine\n",
        "from base import Base\nclass EndpointHandler(Base):\n    def __init__(self, path=''):\n        pass\n",
    ],
)
def test_a_handler_that_can_be_called_is_accepted(tmp_path: Path, source: str) -> None:
    assert inspect(tmp_path, {"handler.py": source}) == []


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def handle(data): ...\n", "no class EndpointHandler"),
        ("class Handler:\n    pass\n", "no class EndpointHandler"),
        ("def f():\n    class EndpointHandler:\n        pass\n", "no class EndpointHandler"),
        (HANDLER.replace("__call__", "predict"), "no method def __call__"),
        (HANDLER.replace("self, data", "self"), "__call__ must take one argument"),
        (HANDLER.replace("self, data", "self, data, other"), "__call__ must take one argument"),
        (HANDLER.replace("self, data", "self, data, *, other"), "__call__ must take one argument"),
        (HANDLER.replace(', path=""', ""), "__init__ must take one argument"),
        (HANDLER.replace('path=""', "path, tokenizer"), "__init__ must take one argument"),
        (HANDLER.replace('path=""', '*, path=""'), "__init__ must take one argument"),
        (HANDLER.replace("def __init__", "async def __init__"), "__init__ must not be async"),
        ("class EndpointHandler:\n    def __call__(self, data):\n        return data\n", "def __init__"),
    ],
)
def test_a_handler_that_could_not_be_called_is_found(tmp_path: Path, source: str, message: str) -> None:
    findings = inspect(tmp_path, {"handler.py": source})
    assert len(findings) == 1
    assert message in str(findings[0])
    assert (findings[0].path, findings[0].rule) == ("handler.py", "handler")


def test_a_handler_elsewhere_in_the_repository_is_not_asked_for_a_class(tmp_path: Path) -> None:
    assert inspect(tmp_path, {"pkg/handler.py": "x = 1\n"}) == []


def test_a_file_too_large_to_be_source_is_found(tmp_path: Path) -> None:
    findings = inspect(tmp_path, {"data.py": b"#" * (9 * 1024 * 1024)})
    assert [str(finding) for finding in findings] == ["data.py: it has more than 8,388,608 bytes"]
