"""The parameters of the three routes that generate text, and the sampling they stand for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ..model import BadRequest, InvalidParameters
from .parameter import Parameter

if TYPE_CHECKING:
    from ..runtimes.generation import Sampling

DEFAULT_NEW_TOKENS = 100
"""What `InferenceClient` documents as the default of `max_new_tokens` and `max_tokens`."""

TEMPERATURE = Parameter(
    "temperature",
    "number",
    "Above 1 flattens the probabilities; 0 takes the likeliest token.",
    minimum=0,
    maximum=100,
)
TOP_P = Parameter(
    "top_p",
    "number",
    "Draw from the likeliest tokens that together have this probability.",
    minimum=0,
    maximum=1,
    is_minimum_excluded=True,
)
SEED = Parameter("seed", "integer", "Makes drawing repeatable.", minimum=0, maximum=2**63 - 1)
STOP = Parameter(
    "stop", "strings", "Texts at which to end; not part of the answer.", maximum=16, is_single_allowed=True
)
FREQUENCY = Parameter(
    "frequency_penalty", "number", "Makes tokens less likely each time they come.", minimum=-2, maximum=2
)
PRESENCE = Parameter(
    "presence_penalty", "number", "Makes tokens that came less likely.", minimum=-2, maximum=2
)

HUGGING_FACE = (
    Parameter("max_new_tokens", "integer", "Most tokens to generate.", DEFAULT_NEW_TOKENS, minimum=1),
    Parameter("do_sample", "boolean", "Draw tokens; where absent, when a parameter of drawing is given."),
    TEMPERATURE,
    Parameter("top_k", "integer", "Draw from so many likeliest tokens.", minimum=1),
    TOP_P,
    Parameter(
        "typical_p", "number", "Locally typical sampling.", minimum=0, maximum=1, is_minimum_excluded=True
    ),
    Parameter(
        "repetition_penalty",
        "number",
        "Above 1 makes tokens that are in the text less likely.",
        minimum=0,
        maximum=100,
        is_minimum_excluded=True,
    ),
    FREQUENCY,
    STOP,
    SEED,
    Parameter("return_full_text", "boolean", "Whether the prompt is part of the answer.", default=False),
    Parameter("truncate", "integer", "Keep only so many last tokens of the prompt.", minimum=1),
    Parameter("details", "boolean", "Whether each token is answered too.", default=False),
)
OPENAI = (
    Parameter("model", "string", "Not looked at: this server has one model."),
    Parameter("max_tokens", "integer", "Most tokens to generate.", minimum=1),
    TEMPERATURE,
    TOP_P,
    FREQUENCY,
    PRESENCE,
    STOP,
    SEED,
    Parameter("n", "integer", "How many answers; this server gives one.", minimum=1, maximum=1),
    Parameter("stream", "boolean", "Send the answer piece by piece.", default=False),
    Parameter("stream_options", "object", "`include_usage`: end the stream with the count of tokens."),
    Parameter("user", "string", "Not looked at."),
)

_REFUSED = frozenset(
    {"adapter_id", "best_of", "decoder_input_details", "grammar", "top_n_tokens", "watermark"}
)
"""Parameters of Text Generation Inference that are not served."""


def drop_unused(given: Any, known: Iterable[Parameter]) -> Any:
    """Refuse what this task does not use, in the words that `InferenceClient` looks for.

    The client then sends the request again without them, and warns its user.

    Raises:
        BadRequest: some parameters are not used.
    """
    if not isinstance(given, Mapping):
        return given
    names = {parameter.name for parameter in known}
    idle = [name for name in given if name in _REFUSED and _asks_nothing(name, given[name])]
    unused = [str(name)[:60] for name in given if name not in names and name not in idle]
    if unused:
        raise BadRequest(
            f"The following `model_kwargs` are not used by the model: {unused}", error_type="validation"
        )
    return {name: value for name, value in given.items() if name not in idle}


def _asks_nothing(name: str, value: Any) -> bool:
    return value is None or value is False or (name == "best_of" and value == 1 and value is not True)


def read_sampling(
    parameters: Mapping[str, Any], *, samples_by_default: bool, max_seconds: float, top_logprobs: int = 0
) -> Sampling:
    """The sampling that checked parameters stand for.

    Args:
        parameters: Of either family.
        samples_by_default: Whether the model's own configuration says to draw.
        max_seconds: Longest that generating may take.
        top_logprobs: How many likeliest tokens to report.
    """
    from ..runtimes.generation import Sampling

    temperature = parameters.get("temperature")
    drawing = {name: parameters.get(name) for name in ("top_k", "top_p", "typical_p")}
    is_sampled = parameters.get("do_sample")
    if is_sampled is None:
        is_sampled = samples_by_default or any(v is not None for v in (temperature, *drawing.values()))
    if temperature == 0:
        is_sampled, temperature = False, None
    stop = tuple(text for text in parameters.get("stop") or () if text)
    if any(len(text) > 1000 for text in stop):
        raise InvalidParameters("The parameter `stop` holds a text of more than 1000 characters.")
    return Sampling(
        max_new_tokens=parameters.get("max_new_tokens")
        or parameters.get("max_completion_tokens")
        or parameters.get("max_tokens")
        or DEFAULT_NEW_TOKENS,
        is_sampled=is_sampled,
        temperature=temperature,
        **drawing,
        repetition_penalty=parameters.get("repetition_penalty"),
        frequency_penalty=parameters.get("frequency_penalty"),
        presence_penalty=parameters.get("presence_penalty"),
        stop=stop,
        seed=parameters.get("seed"),
        max_seconds=max_seconds,
        top_logprobs=top_logprobs,
    )
