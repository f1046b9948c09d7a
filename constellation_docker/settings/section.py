"""What every section of the settings is."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

MEBIBYTE = 1024 * 1024
GIBIBYTE = 1024 * MEBIBYTE


class Section(BaseModel):
    """Unknown settings are refused; none changes once it is read."""

    model_config = ConfigDict(extra="forbid", frozen=True)
