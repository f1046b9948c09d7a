"""automatic-speech-recognition: the words of a sound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..model import Call, InvalidParameters, ModelFault, ServingError
from ..runtimes.json_value import to_json_value
from .binary_task import BinaryTask
from .parameter import Parameter
from .sound import Sound, decode_sound, resample

WHISPER_SECONDS = 30
GENERATE_OPTIONS = (
    "language",
    "task",
    "max_new_tokens",
    "num_beams",
    "temperature",
    "do_sample",
    "top_k",
    "top_p",
)

_GENERATE = Parameter("generate_kwargs", "object", f"For generating models: {', '.join(GENERATE_OPTIONS)}.")


class SpeechRecognition(BinaryTask):
    """Answers `{"text", "chunks"?}`.

    Args:
        recognize: transformers' pipeline: `({"raw", "sampling_rate"}, **options)` → `{"text", "chunks"?}`.
        rate: Samples a second that the model hears.
        kind: `ctc`, `seq2seq` or `seq2seq_whisper`, as the pipeline names it.
        device: Where it computes.
    """

    task = "automatic-speech-recognition"
    family = "audio"
    parameters = (
        Parameter("return_timestamps", "any", "true, `word`, or for CTC models `char`: also answer chunks."),
        _GENERATE,
        Parameter(
            "generation_parameters", "object", "The same as generate_kwargs, as the Hub's clients name it."
        ),
    )

    def __init__(self, recognize: Callable[..., Any], *, rate: int, kind: str, device: str) -> None:
        super().__init__(runtime="transformers", device=device, max_batch_size=1)
        self._recognize = recognize
        self._rate = rate
        self._kind = kind

    def decode(self, content: bytes) -> Sound:
        """See `BinaryTask.decode`."""
        return resample(decode_sound(content), self._rate)

    def compute(self, calls: Sequence[Call], decoded: Sequence[Sound]) -> Sequence[Any]:
        """See `BinaryTask.compute`."""
        return [self._attempt(call, sound) for call, sound in zip(calls, decoded, strict=True)]

    def _attempt(self, call: Call, sound: Sound) -> Any:
        try:
            options = self._options(call.parameters)
            is_hidden = False
            if self._kind == "seq2seq_whisper" and sound.seconds > WHISPER_SECONDS:
                # Whisper reads long sounds only with timestamps; the client need not see them.
                is_hidden = "return_timestamps" not in options
                options.setdefault("return_timestamps", True)
            result = self._recognize({"raw": sound.samples, "sampling_rate": sound.rate}, **options)
        except ServingError as problem:
            return problem
        except ValueError as problem:
            return InvalidParameters(f"The model refuses these parameters: {str(problem)[:300]}")
        except (RuntimeError, IndexError) as problem:
            fault = ModelFault("The model failed on this sound.")
            fault.__cause__ = problem
            return fault
        answer = {"text": str(result.get("text", ""))}
        if "chunks" in result and not is_hidden:
            answer["chunks"] = to_json_value(result["chunks"])
        return answer

    def _options(self, parameters: dict[str, Any]) -> dict[str, Any]:
        options: dict[str, Any] = {}
        wanted = parameters["return_timestamps"]
        if wanted not in (None, False):
            if wanted not in (True, "word", "char"):
                raise InvalidParameters(
                    "The parameter `return_timestamps` must be true, false, 'word' or 'char'."
                )
            options["return_timestamps"] = wanted
        given = {**(parameters["generation_parameters"] or {}), **(parameters["generate_kwargs"] or {})}
        unknown = [name for name in given if name not in GENERATE_OPTIONS]
        if unknown:
            raise InvalidParameters(
                f"The parameter `generate_kwargs` takes {', '.join(GENERATE_OPTIONS)}, not {unknown[0][:60]!r}."
            )
        if given and self._kind == "ctc":
            raise InvalidParameters(
                "The parameter `generate_kwargs` means nothing to this model: it does not generate."
            )
        return options | ({"generate_kwargs": given} if given else {})

    def warm_up(self) -> None:
        """Listen to a tenth of a second of silence."""
        import numpy as np

        self._recognize({"raw": np.zeros(self._rate // 10, dtype=np.float32), "sampling_rate": self._rate})

    def response_schema(self) -> dict[str, Any]:
        """See `BinaryTask.response_schema`."""
        return {
            "type": "object",
            "required": ["text"],
            "properties": {
                "text": {"type": "string"},
                "chunks": {"type": "array", "items": {"type": "object"}},
            },
        }
