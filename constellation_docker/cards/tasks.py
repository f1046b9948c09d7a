"""The tasks that a card's `pipeline_tag` may name.

Source: `PIPELINE_DATA` of `@huggingface/tasks` (what the Hub accepts), plus two older tags that many
repositories still carry. `huggingface_hub` has no such list.
"""

from __future__ import annotations

TEXT_TASKS = frozenset(
    {
        "feature-extraction",
        "fill-mask",
        "sentence-similarity",
        "summarization",
        "text-classification",
        "text-generation",
        "text-to-3d",
        "text-to-audio",
        "text-to-image",
        "text-to-speech",
        "text-to-video",
        "text2text-generation",
        "token-classification",
        "translation",
    }
)
FILE_TASKS = frozenset(
    {
        "audio-classification",
        "audio-to-audio",
        "automatic-speech-recognition",
        "depth-estimation",
        "document-question-answering",
        "image-classification",
        "image-feature-extraction",
        "image-segmentation",
        "image-to-3d",
        "image-to-image",
        "image-to-text",
        "image-to-video",
        "keypoint-detection",
        "mask-generation",
        "object-detection",
        "video-classification",
        "video-to-video",
        "visual-question-answering",
        "voice-activity-detection",
        "zero-shot-image-classification",
        "zero-shot-object-detection",
    }
)
TABULAR_TASKS = frozenset({"tabular-classification", "tabular-regression"})
LABELLED_TASKS = frozenset({"zero-shot-classification", "zero-shot-image-classification"})
OTHER_TASKS = frozenset(
    {
        "any-to-any",
        "audio-text-to-text",
        "conversational",
        "graph-ml",
        "image-text-to-image",
        "image-text-to-text",
        "image-text-to-video",
        "multiple-choice",
        "other",
        "question-answering",
        "reinforcement-learning",
        "robotics",
        "table-question-answering",
        "table-to-text",
        "tabular-to-text",
        "text-ranking",
        "text-retrieval",
        "time-series-forecasting",
        "unconditional-image-generation",
        "video-text-to-text",
        "visual-document-retrieval",
        "zero-shot-classification",
    }
)
KNOWN_TASKS: tuple[str, ...] = tuple(sorted(TEXT_TASKS | FILE_TASKS | TABULAR_TASKS | OTHER_TASKS))
