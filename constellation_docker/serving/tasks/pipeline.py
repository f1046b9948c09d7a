"""Tasks that only transformers' own pipelines know: checked inputs in, the pipeline's answer out."""

from __future__ import annotations

import io
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..model import BadRequest, Call, InvalidParameters, ModelFault, RawAnswer, Request, ServingError
from ..runtimes.json_value import to_json_value
from .image import open_image
from .parameter import Parameter, read_parameters, render_parameters_schema
from .payload import read_base64, read_binary, read_envelope, read_object, read_texts
from .sound import decode_sound, encode_wav, resample

Input = Literal["image", "audio", "text", "document", "table"]

_TOP_K = Parameter("top_k", "integer", "How many labels are answered.", minimum=1)
_LABELS = Parameter(
    "candidate_labels", "strings", "The labels to choose from.", minimum=1, maximum=256, is_required=True
)
_TEMPLATE = Parameter(
    "hypothesis_template", "string", "A sentence in which {} stands for the label.", maximum=2000
)
_THRESHOLD = Parameter("threshold", "number", "Least score of what is answered.", minimum=0, maximum=1)
_FUNCTION = Parameter(
    "function_to_apply", "string", "What makes scores of outputs.", choices=("sigmoid", "softmax", "none")
)


@dataclass(frozen=True, slots=True)
class PipelineForm:
    """What a pipeline reads, and which of its parameters are safe to pass on from strangers."""

    input: Input
    parameters: tuple[Parameter, ...] = ()


FORMS: dict[str, PipelineForm] = {
    "audio-classification": PipelineForm("audio", (_TOP_K, _FUNCTION)),
    "zero-shot-audio-classification": PipelineForm("audio", (_LABELS, _TEMPLATE)),
    "zero-shot-image-classification": PipelineForm("image", (_LABELS, _TEMPLATE)),
    "zero-shot-object-detection": PipelineForm("image", (_LABELS, _THRESHOLD)),
    "image-segmentation": PipelineForm(
        "image",
        (
            Parameter("subtask", "string", "Which kind.", choices=("semantic", "instance", "panoptic")),
            _THRESHOLD,
            Parameter("mask_threshold", "number", "Where a mask begins.", minimum=0, maximum=1),
            Parameter("overlap_mask_area_threshold", "number", "What counts as apart.", minimum=0, maximum=1),
        ),
    ),
    "image-feature-extraction": PipelineForm(
        "image", (Parameter("pool", "boolean", "One vector an image."),)
    ),
    "depth-estimation": PipelineForm("image"),
    "document-question-answering": PipelineForm("document", (_TOP_K,)),
    "table-question-answering": PipelineForm("table"),
    "text-to-audio": PipelineForm("text"),
    "text-to-speech": PipelineForm("text"),
}
"""Pipelines that take URLs or paths only get what was decoded here, so nothing is fetched and no file read."""


class PipelineTask:
    """A transformers pipeline behind the `Model` protocol.

    Args:
        task: The card's task, one of FORMS.
        pipeline: The pipeline.
        device: Where it computes.
        rate: Samples a second that an audio model hears.
    """

    runtime = "transformers"
    max_batch_size = 1
    paths: frozenset[str] = frozenset({"/"})

    def __init__(self, task: str, pipeline: Callable[..., Any], *, device: str, rate: int = 16_000) -> None:
        self.task = task
        self.device = device
        self._pipeline = pipeline
        self._form = FORMS[task]
        self._rate = rate

    def parse(self, request: Request) -> Call:
        """See `Model.parse`."""
        if self._form.input in ("image", "audio"):
            binary = read_binary(request, family=self._form.input)
            inputs: Any = binary.content
            given = binary.parameters
        else:
            inputs, given = read_envelope(read_object(request, is_text_allowed=self._form.input == "text"))
            inputs = self._check(inputs)
        return Call(inputs, read_parameters(given, self._form.parameters, of=self.task))

    def _check(self, inputs: Any) -> Any:
        if self._form.input == "text":
            texts = read_texts(inputs)
            if texts.is_list:
                raise InvalidParameters("`inputs` must be one text.")
            return texts.items[0]
        if self._form.input == "document":
            if not isinstance(inputs, dict) or not isinstance(inputs.get("question"), str):
                raise InvalidParameters('`inputs` must be {"image": <base64>, "question": <text>}.')
            return {"image": read_base64(inputs.get("image"), family="image"), "question": inputs["question"]}
        if not isinstance(inputs, dict) or not {"table", "query"} <= inputs.keys():
            raise InvalidParameters('`inputs` must be {"table": {<column>: [<cells>]}, "query": <text>}.')
        return {"table": inputs["table"], "query": inputs["query"]}

    def batch_key(self, call: Call) -> Hashable:
        """Never used: these run one by one."""
        return None

    def run(self, calls: Sequence[Call]) -> Sequence[Any]:
        """See `Model.run`."""
        return [self._attempt(call) for call in calls]

    def _attempt(self, call: Call) -> Any:
        options = {name: value for name, value in call.parameters.items() if value is not None}
        try:
            inputs = self._decode(call.inputs)
            result = self._pipeline(inputs, **options)
            if self._form.input == "text" and isinstance(result, dict) and "audio" in result:
                return RawAnswer(
                    encode_wav(result["audio"].reshape(-1), result["sampling_rate"]), "audio/wav"
                )
            return to_json_value(result)
        except ServingError as problem:
            return problem
        except (ValueError, TypeError, KeyError) as problem:
            if "model_kwargs" in str(problem):
                return BadRequest(str(problem)[:1000])
            return _fault(problem)
        except (RuntimeError, IndexError) as problem:
            return _fault(problem)

    def _decode(self, inputs: Any) -> Any:
        if self._form.input == "image":
            return open_image(io.BytesIO(inputs))
        if self._form.input == "audio":
            return resample(decode_sound(inputs), self._rate).samples
        if self._form.input == "document":
            return {**inputs, "image": open_image(io.BytesIO(inputs["image"]))}
        return inputs

    def stream(self, call: Call) -> Iterator[Any] | None:
        """These tasks answer at once."""
        return None

    def warm_up(self) -> None:
        """Nothing is known to be right for every one of these models."""

    def schema(self) -> dict[str, dict[str, Any]]:
        """See `Model.schema`."""
        kinds: dict[str, dict[str, Any]] = {
            "text": {"type": "string"},
            "document": {"type": "object", "required": ["image", "question"]},
            "table": {"type": "object", "required": ["table", "query"]},
        }
        inputs = kinds.get(self._form.input, {"type": "string", "contentEncoding": "base64"})
        properties = {"inputs": inputs, "parameters": render_parameters_schema(self._form.parameters)}
        request = {"type": "object", "required": ["inputs"], "properties": properties}
        return {"/": {"request": request, "response": {}}}


def _fault(problem: Exception) -> ModelFault:
    fault = ModelFault(f"The model failed on this input with {type(problem).__name__}.")
    fault.__cause__ = problem
    return fault
