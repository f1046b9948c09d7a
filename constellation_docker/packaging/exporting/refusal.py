"""Why a model is not exported."""


class ExportRefused(Exception):
    """The model cannot be exported, or its graph disagrees. The message is one sentence for people."""
