"""Imported once by the process from which servers on the transformers runtime are forked."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"

import torch  # noqa: F401
import transformers.models.auto.modeling_auto
import transformers.pipelines  # noqa: F401
from transformers import AutoTokenizer, GenerationMixin  # noqa: F401
