"""`python -m exporting --model /model --task … --out /out`: writes the graph and `report.json`.

It ends with 0 also where nothing is kept: the report then says why. Only a fault of its own ends it otherwise.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from .refusal import ExportRefused


def main(arguments: list[str] | None = None) -> int:
    """Export, compare, report. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="exporting")
    parser.add_argument("--model", type=Path, required=True, help="the repository")
    parser.add_argument(
        "--out", type=Path, required=True, help="an existing directory for the graph and report.json"
    )
    parser.add_argument("--task", required=True, help="such as text-classification")
    parser.add_argument("--examples", type=Path, help="JSON: a list of {inputs, parameters}")
    parser.add_argument("--tolerance", type=float, help="largest deviation of a score that is accepted")
    parser.add_argument(
        "--quantize", action="store_true", help="also quantise to 8 bits, and keep that if it agrees"
    )
    parser.add_argument("--threads", type=int, default=0, help="computing threads; 0: as torch sees fit")
    given = parser.parse_args(arguments)
    began = time.monotonic()
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ[variable] = "1"
    examples = json.loads(given.examples.read_text(encoding="utf-8")) if given.examples else []
    try:
        report = _export(given, examples)
    except ExportRefused as refusal:
        report = {"kept": False, "reason": str(refusal)}
    report["seconds"] = round(time.monotonic() - began, 3)
    (given.out / "report.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    print(json.dumps(report), flush=True)  # noqa: T201  the program's answer
    return 0


def _export(given: argparse.Namespace, examples: list[Any]) -> dict[str, Any]:
    # Not before the arguments are right: importing torch takes seconds.
    from .program import export_model

    return export_model(
        given.model,
        given.out,
        task=given.task,
        examples=examples,
        tolerance=given.tolerance,
        is_quantized=given.quantize,
        threads=given.threads,
    )


if __name__ == "__main__":
    raise SystemExit(main())
