"""Imported once by the process from which servers on the transformers runtime are forked."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import torch  # noqa: E402,F401
import transformers.models.auto.modeling_auto  # noqa: E402,F401
import transformers.pipelines  # noqa: E402,F401
from transformers import AutoTokenizer, GenerationMixin  # noqa: E402,F401
