"""Write docs/configuration.md from the settings themselves: `make docs`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from constellation_docker.settings import EnvironmentSettings, Settings

INTRODUCTION = """\
# Configuration

<!-- Written by `make docs` from constellation_docker/settings; a test compares the two. -->

Settings come, strongest first, from environment variables, then from the TOML file that `CONSTELLATION_CONFIG`
names, then from the defaults below. They are read afresh for every run and every sensor tick. Two are read when the
code location is loaded, so reload it after a change: the names of `environments`, which are partitions, and
`reconcile.cron`.

* A setting `section.name` is the variable `CONSTELLATION_SECTION__NAME`. Lists and maps are JSON.
* **Secrets are references**, never values: `env:NAME` reads an environment variable, `file:/path` a file, at the
  moment of use. They never enter run configuration, tags, events, Compose files, layers or logs.
* A misspelt setting stops the start with one sentence that names it.

```toml
# constellation.toml
database_url = "postgresql://constellation@db.example/constellation"
database_password = "env:CARD_STORE_PASSWORD"

[source]
allowed_schemes = ["https", "hf"]
allowed_hosts = ["git.example.org", "*.huggingface.co"]

[registry]
repository = "registry.example.org/models"
username = "env:REGISTRY_USER"
password = "file:/run/secrets/registry"

[environments.staging]
port = 8081

[environments.production]
engine_url = "ssh://deploy@models.example.org"
bind = "0.0.0.0"
port = 443
public_url = "https://models.example.org"
```
"""


def render_page() -> str:
    """The whole page."""
    parts = [INTRODUCTION, "## General\n", *_table(Settings, prefix="", only_plain=True)]
    for name, field in Settings.model_fields.items():
        section = _section_of(field)
        if name == "environments":
            section = EnvironmentSettings
            parts += [
                f"\n## environments.*\n\n{_first_line(section)}\n",
                *_table(section, "environments.dev."),
            ]
            for inner, inner_field in section.model_fields.items():
                if optional := _optional_section_of(inner_field):
                    parts += [
                        f"\n### environments.*.{inner}\n\n{_first_line(optional)}\n",
                        *_table(optional, f"environments.dev.{inner}."),
                    ]
        elif section is not None:
            parts += _section(section, name, level=2)
    return "\n".join(parts) + "\n"


def _section(section: type[BaseModel], name: str, *, level: int) -> Iterator[str]:
    yield f"\n{'#' * level} {name}\n\n{_first_line(section)}\n"
    yield from _table(section, f"{name}.")
    for inner, field in section.model_fields.items():
        if nested := _section_of(field):
            yield from _section(nested, f"{name}.{inner}", level=level + 1)


def _table(section: type[BaseModel], prefix: str, *, only_plain: bool = False) -> Iterator[str]:
    yield "| setting | default | meaning |\n|---|---|---|"
    for name, field in section.model_fields.items():
        if _section_of(field) or (only_plain and name == "environments"):
            continue
        yield f"| `{prefix}{name}`<br>{_type_name(field.annotation)} | {_default(field)} | {field.description or ''} |"


def _section_of(field: FieldInfo) -> type[BaseModel] | None:
    annotation = field.annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _optional_section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The section that a setting holds where it is set at all."""
    members = [member for member in get_args(field.annotation) if member is not type(None)]
    found = members[0] if len(members) == 1 else None
    return found if isinstance(found, type) and issubclass(found, BaseModel) else None


def _default(field: FieldInfo) -> str:
    if field.default_factory is not None and field.annotation is not dict:
        value = field.default_factory() if get_origin(field.annotation) is dict else None  # type: ignore[call-arg]
    else:
        value = field.default
    if value is None:
        return "—"
    return f"`{json.dumps(value, default=str)}`"


def _type_name(annotation: Any) -> str:
    if annotation is None or annotation is type(None):
        return ""
    members = [member for member in get_args(annotation) if member is not type(None)]
    if get_origin(annotation) in {tuple, list}:
        return "list"
    if get_origin(annotation) is dict:
        return "map"
    if members and all(isinstance(member, str) for member in members):
        return " \\| ".join(members)
    if members:
        return _type_name(members[0])
    is_section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return {"str": "text", "bool": "yes/no", "int": "integer", "float": "number", "Path": "path"}.get(
        getattr(annotation, "__name__", ""), "section" if is_section else "text"
    )


def _first_line(section: type[BaseModel]) -> str:
    return (section.__doc__ or "").strip().splitlines()[0]


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render_page(), encoding="utf-8")
