"""A model without weights, for the server's tests: it answers its inputs and can be told to misbehave."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any

from constellation_docker.serving.model import BadRequest, Call, InvalidParameters, Request
from constellation_docker.serving.strict_json import parse_json


class EchoModel:
    """Answers `{"echo": inputs, "batch": how many calls ran together}`.

    `parameters` steer it: `sleep` (seconds), `fail` ("raise", "exit", "interrupt", "unserialisable",
    "poison": the whole batch fails while this call is in it, "short": one answer too few), `key`
    (batch key), `pieces` (stream length), `wait_for` (a file whose appearance ends the call), `began_file`
    (made when the call begins).
    """

    task = "text-classification"
    runtime = "custom"
    device = "cpu"
    paths = frozenset({"/"})

    def __init__(self, max_batch_size: int = 32) -> None:
        self.max_batch_size = max_batch_size
        self.batches: list[int] = []

    def parse(self, request: Request) -> Call:
        document = parse_json(request.body)
        if not isinstance(document, dict) or "inputs" not in document:
            raise BadRequest('the body must be an object with "inputs"')
        parameters = document.get("parameters", {})
        if not isinstance(parameters, dict):
            raise InvalidParameters("parameters must be an object")
        size = len(document["inputs"]) if isinstance(document["inputs"], list) else 1
        return Call(document["inputs"], parameters, request.path, bool(document.get("stream")), max(size, 1))

    def batch_key(self, call: Call) -> Hashable:
        return str(call.parameters.get("key"))

    def run(self, calls: Sequence[Call]) -> Sequence[Any]:
        self.batches.append(len(calls))
        del self.batches[:-1000]
        if any(call.parameters.get("fail") == "poison" for call in calls):
            raise RuntimeError("the batch is poisoned: secret-in-a-traceback")
        answers = [self._answer(call, len(calls)) for call in calls]
        return answers[:-1] if any(call.parameters.get("fail") == "short" for call in calls) else answers

    def _answer(self, call: Call, batch: int) -> Any:
        if "began_file" in call.parameters:
            Path(call.parameters["began_file"]).touch()
        time.sleep(call.parameters.get("sleep", 0))
        if "wait_for" in call.parameters:
            while not Path(call.parameters["wait_for"]).exists():
                time.sleep(0.005)
        match call.parameters.get("fail"):
            case "raise":
                raise RuntimeError("it went wrong: secret-in-a-traceback")
            case "exit":
                sys.exit(3)
            case "interrupt":
                raise KeyboardInterrupt
            case "unserialisable":
                return {"answer": object()}
            case "returned":
                return InvalidParameters("this call alone is wrong")
        return {"echo": call.inputs, "batch": batch}

    def stream(self, call: Call) -> Iterator[Any] | None:
        if call.parameters.get("pieces") is None:
            return None
        return self._pieces(call)

    def _pieces(self, call: Call) -> Iterator[Any]:
        try:
            for index in range(call.parameters["pieces"]):
                time.sleep(call.parameters.get("sleep", 0))
                if call.parameters.get("fail_at") == index:
                    raise RuntimeError("it went wrong: secret-in-a-traceback")
                yield {"token": {"id": index, "text": str(call.inputs)}}
            yield "[DONE]"
        finally:
            if "closed_file" in call.parameters:
                Path(call.parameters["closed_file"]).touch()

    def schema(self) -> dict[str, dict[str, Any]]:
        return {
            "/": {
                "request": {
                    "type": "object",
                    "required": ["inputs"],
                    "properties": {"inputs": {}, "parameters": {"type": "object"}, "stream": {}},
                },
                "response": {"type": "object", "required": ["echo", "batch"]},
            }
        }

    def warm_up(self) -> None:
        time.sleep(float(os.environ.get("ECHO_WARM_UP_SECONDS", "0")))
