"""How one asset's typed result reaches the next: as a JSON record of the same partition.

A record holds facts and digests, never content: what it points to lies in the content-addressed store.
JSON rather than Dagster's default pickle, so that a record written by one version of this code is read,
or clearly refused, by the next.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from urllib.parse import quote

import dagster as dg
from pydantic import BaseModel, ValidationError

from constellation_docker.settings import load_settings


class RecordIOManager(dg.ConfigurableIOManager):
    """Keeps pydantic records in `<home>/records/<asset>/<partition>.json`."""

    def handle_output(self, context: dg.OutputContext, obj: BaseModel) -> None:
        """Write the record in one move, so that a killed run leaves the old one or the new one."""
        path = self._path(context)
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(obj.model_dump_json(indent=1))
        Path(temporary).replace(path)

    def load_input(self, context: dg.InputContext) -> BaseModel:
        """Read the record of the same partition.

        Raises:
            dagster.Failure: There is none yet, or an incompatible version of this code wrote it.
        """
        path = self._path(context)
        asset = context.asset_key.to_user_string()
        remedy = f"Materialize {asset} for this partition first, or launch the job package_model, which does."
        try:
            record_type: type[BaseModel] = context.dagster_type.typing_type
            return record_type.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise dg.Failure(
                f"{context.partition_key}: {asset} was not materialized yet. {remedy}", allow_retries=False
            ) from None
        except ValidationError as error:
            raise dg.Failure(
                f"{context.partition_key}: the record of {asset} comes from another version of this software. {remedy}",
                allow_retries=False,
            ) from error

    def _path(self, context: dg.InputContext | dg.OutputContext) -> Path:
        partition = context.asset_partition_key if context.has_asset_partitions else "_"
        home = load_settings().home
        return (
            home / "records" / context.asset_key.to_python_identifier() / f"{quote(partition, safe='')}.json"
        )
