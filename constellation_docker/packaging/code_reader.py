"""Parses and compiles foreign Python and reads a handler's class, without running any of it.

Run as a program, isolated (`python -I`): the compiler can be made to use up its stack or the memory by
source that was written for it (docs.python.org, `ast.parse`, warning), and that must not end our process.
It uses nothing but the standard library.

    standard input:  {"root", "paths": […], "feature_version": [3, 11], "handler": "handler.py" | null}
    standard output: one JSON object per line: {"path", "line", "rule", "message"}; at the end {"done": true}
"""

from __future__ import annotations

import ast
import json
import resource
import sys
import warnings
from pathlib import Path

_MEMORY_BYTES = 2 * 1024**3
_CPU_SECONDS = 120
_CLASS = "EndpointHandler"


def main() -> None:
    """Answer the one request on standard input."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (_CPU_SECONDS, _CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    request = json.load(sys.stdin)
    version = tuple(request["feature_version"])
    for path in request["paths"]:
        _say(path, 0, "reading", "")
        tree = _compile(Path(request["root"]) / path, path, version)
        if tree is not None and path == request["handler"]:
            _read_handler(tree, path)
    sys.stdout.write(json.dumps({"done": True}) + "\n")


def _say(path: str, line: int, rule: str, message: str) -> None:
    sys.stdout.write(json.dumps({"path": path, "line": line, "rule": rule, "message": message}) + "\n")
    sys.stdout.flush()


def _compile(place: Path, path: str, version: tuple[int, int]) -> ast.Module | None:
    try:
        tree = ast.parse(place.read_bytes(), filename=path, feature_version=version)
        compile(tree, path, "exec", dont_inherit=True)
    except SyntaxError as error:
        _say(path, error.lineno or 0, "syntax", error.msg)
    except ValueError as error:
        _say(path, 0, "syntax", str(error))
    except (RecursionError, MemoryError):
        _say(path, 0, "syntax", "it is nested too deeply to be compiled")
    else:
        return tree
    return None


def _read_handler(tree: ast.Module, path: str) -> None:
    found = _defined(tree.body)
    if found is None:
        _say(path, 0, "handler", f"it defines no class {_CLASS}")
        return
    if not isinstance(found, ast.ClassDef):
        return  # imported or assigned: only running it would tell more
    methods = {
        node.name: node for node in found.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    is_alone = not [base for base in found.bases if not (isinstance(base, ast.Name) and base.id == "object")]
    start, call = methods.get("__init__"), methods.get("__call__")
    if isinstance(start, ast.AsyncFunctionDef):
        _say(path, start.lineno, "handler", f"{_CLASS}.__init__ must not be async")
    elif start is None:
        if is_alone and not found.decorator_list:
            _say(
                path,
                found.lineno,
                "handler",
                f'{_CLASS} must take the model\'s directory: def __init__(self, path="")',
            )
    elif not _takes_one(start):
        _say(
            path,
            start.lineno,
            "handler",
            f'{_CLASS}.__init__ must take one argument: def __init__(self, path="")',
        )
    if call is None:
        assigned = {
            target.id for node in found.body if isinstance(node, ast.Assign) for target in node.targets
            if isinstance(target, ast.Name)
        }  # fmt: skip
        if is_alone and "__call__" not in assigned:
            _say(path, found.lineno, "handler", f"{_CLASS} has no method def __call__(self, data)")
    elif not _takes_one(call):
        _say(
            path,
            call.lineno,
            "handler",
            f"{_CLASS}.__call__ must take one argument: def __call__(self, data)",
        )


def _defined(body: list[ast.stmt]) -> ast.stmt | None:
    """The last statement at module level that binds the class, also inside `if`, `try` and `with`."""
    found: ast.stmt | None = None
    for node in body:
        if isinstance(node, ast.ClassDef) and node.name == _CLASS:
            found = node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            if any((alias.asname or alias.name) in {_CLASS, "*"} for alias in node.names):
                found = node
        elif isinstance(node, ast.Assign):
            if any(isinstance(target, ast.Name) and target.id == _CLASS for target in node.targets):
                found = node
        elif isinstance(node, ast.If | ast.Try | ast.With):
            blocks = [node.body, getattr(node, "orelse", []), getattr(node, "finalbody", [])]
            blocks += [handler.body for handler in getattr(node, "handlers", [])]
            for block in blocks:
                found = _defined(block) or found
    return found


def _takes_one(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a method may be called with one argument, by position."""
    given = function.args
    if any(isinstance(node, ast.Name) and node.id == "staticmethod" for node in function.decorator_list):
        return False
    positional = [*given.posonlyargs, *given.args]
    required = len(positional) - len(given.defaults)
    takes_one = len(positional) >= 2 or given.vararg is not None
    return takes_one and required <= 2 and all(default is not None for default in given.kw_defaults)


if __name__ == "__main__":
    main()
