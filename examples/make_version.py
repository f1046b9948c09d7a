"""Write a further version of an example: the same files and dependencies, other weights, another commit.

    python -m examples.make_version /tmp/sentiment-2 --version 2 --git

A new version of a model usually changes its weights and nothing else. Training one takes minutes, so this moves the
classifier's bias a little, alike in the safetensors and the ONNX file. Needs only the standard library and git.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Final

SENTIMENT: Final = Path(__file__).parent / "sentiment"
BIAS: Final = "classifier.bias"
STEP: Final = 1 / 1024  # moves a score by about 0.0002: another model, the same answers


def write_version(destination: Path, *, version: int = 2, example: Path = SENTIMENT) -> Path:
    """Copy an example's repository and change its weights, where it has any, as `version` says.

    Args:
        destination: Directory to create; it must not exist.
        version: 1 is the example as it is; every other number gives weights of its own.
        example: The repository to copy.

    Returns:
        The destination.

    Raises:
        FileExistsError: The destination exists.
        ValueError: The example's two weight files do not belong together.
    """
    shutil.copytree(example, destination, ignore=shutil.ignore_patterns("__pycache__", ".git"))
    weights = destination / "model.safetensors"
    if weights.exists() and version != 1:
        old, new = _move_bias(weights, (version - 1) * STEP)
        network = destination / "onnx" / "model.onnx"
        if network.exists():
            _replace_once(network, old, new)
    return destination


def commit_repository(directory: Path, message: str = "Add the model", *, tag: str | None = None) -> str:
    """Commit everything in a directory to a Git repository in it, made where there is none.

    The same files and message give the same commit: author and date are fixed.

    Args:
        directory: The work tree.
        message: The commit's message.
        tag: A tag to set on the commit.

    Returns:
        The commit's hash.
    """
    identity = {
        "NAME": "Constellation examples",
        "EMAIL": "examples@constellation.invalid",
        "DATE": "2026-01-01T00:00:00Z",
    }
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")} | {
        f"GIT_{role}_{field}": value for role in ("AUTHOR", "COMMITTER") for field, value in identity.items()
    }

    def git(*arguments: str) -> str:
        command = ["git", "-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null", *arguments]
        done = subprocess.run(
            command, cwd=directory, env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    if not (directory / ".git").exists():
        git("init", "--quiet", "--initial-branch=main")
    git("add", "--all", "--force")
    git("commit", "--quiet", "--allow-empty", "--message", message)
    if tag:
        git("tag", "--force", tag)
    return git("rev-parse", "HEAD")


def _move_bias(weights: Path, shift: float) -> tuple[bytes, bytes]:
    """Add `shift` to the positive label's bias and take it from the negative's; the bias before and after."""
    content = bytearray(weights.read_bytes())
    header_length = int.from_bytes(content[:8], "little")
    start, end = json.loads(content[8 : 8 + header_length])[BIAS]["data_offsets"]
    place = slice(8 + header_length + start, 8 + header_length + end)
    old = bytes(content[place])
    negative, positive = struct.unpack("<2f", old)
    new = struct.pack("<2f", negative - shift, positive + shift)
    content[place] = new
    weights.write_bytes(content)
    return old, new


def _replace_once(file: Path, old: bytes, new: bytes) -> None:
    content = file.read_bytes()
    if content.count(old) != 1:
        raise ValueError(
            f"{file} does not hold the weights of model.safetensors exactly once; export it again."
        )
    file.write_bytes(content.replace(old, new))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("destination", type=Path)
    parser.add_argument("--version", type=int, default=2)
    parser.add_argument("--example", type=Path, default=SENTIMENT)
    parser.add_argument("--git", action="store_true", help="commit the files to a Git repository there")
    arguments = parser.parse_args()
    write_version(arguments.destination, version=arguments.version, example=arguments.example)
    if arguments.git:
        print(commit_repository(arguments.destination, f"Version {arguments.version}"))


if __name__ == "__main__":
    main()
