"""`constellation-docker keys …` and `constellation-docker gateway …`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from constellation_docker.errors import InvalidInput
from constellation_docker.gateway.access.audit import kept_in, record_command
from constellation_docker.gateway.access.principal import EVERY_ENVIRONMENT, Role

if TYPE_CHECKING:
    from constellation_docker.gateway.access.api_keys import ApiKey, ApiKeys
    from constellation_docker.settings import Settings

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")

_SPAN = re.compile(r"(\d{1,5})([dhm])")
_UNITS = {"d": "days", "h": "hours", "m": "minutes"}


@click.group()
def keys() -> None:
    """Make, list and revoke the gateway's API keys."""


@keys.command()
@click.option("--name", required=True, help="Who will hold it: a person or a program.")
@click.option(
    "--role", required=True, type=click.Choice([role.value for role in Role]), help="What the holder may do."
)
@click.option(
    "--environment",
    "environments",
    multiple=True,
    help="Where the holder may change something; give it again for more, `*` for everywhere. Default: where the role may.",
)
@click.option(
    "--expires", help="When it ends: 90d, 12h, 2027-01-31 or 2027-01-31T12:00+01:00 (UTC by default)."
)
@as_json
def create(name: str, role: str, environments: tuple[str, ...], expires: str | None, as_json: bool) -> None:
    """Make an API key. It is shown once, on standard output; the store keeps only a digest of it."""
    with _keys() as (opened, settings):
        known = settings.environments
        for environment in environments:
            if environment not in {*known, EVERY_ENVIRONMENT}:
                raise InvalidInput(
                    f"There is no environment named {environment!r}.",
                    remedy=f"Use {', '.join(sorted(known))} or {EVERY_ENVIRONMENT}; or add it to the `environments` setting.",
                )
        # The audit file comes first: where nothing can be written down, no key is made.
        with kept_in(settings.gateway.audit_file):
            key, made = opened.create(
                name,
                Role(role),
                environments=environments or None,
                expires_at=moment_of(expires, datetime.now(UTC)) if expires else None,
            )
            record_command("create_key", _described(made))
    if as_json:
        click.echo(json.dumps({"key": key, **_facts(made)}, indent=2, ensure_ascii=False))
        return
    click.echo(key)
    click.echo(
        f"This is API key {made.key_id} of {made.name} ({made.role}). It is not shown again.", err=True
    )


@keys.command("list")
@as_json
def list_keys(as_json: bool) -> None:
    """List the API keys, the revoked and expired ones too."""
    with _keys() as (opened, _):
        found = opened.list()
    if as_json:
        click.echo(json.dumps([_facts(key) for key in found], indent=2, ensure_ascii=False))
        return
    if not found:
        click.echo("There are no API keys.")
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        "key id", "name", "role", "environments", "last used (UTC)", "state", box=None, pad_edge=False
    )
    now = datetime.now(UTC)
    for key in found:
        used = f"{key.last_used_at:%Y-%m-%d %H:%M}" if key.last_used_at else "never"
        until = f"until {key.expires_at:%Y-%m-%d %H:%M}" if key.expires_at else "good"
        row = (key.name, key.role, ", ".join(_named(key) or ["as the role"]), used, key.problem(now) or until)
        table.add_row(key.key_id, *(Text(value) for value in row))
    console = Console(soft_wrap=True) if Console().is_terminal else Console(width=240)
    console.print(table)


@keys.command()
@click.argument("key_id")
@as_json
def revoke(key_id: str, as_json: bool) -> None:
    """End an API key at once, and the browser sessions that were begun with it."""
    with _keys() as (opened, settings), kept_in(settings.gateway.audit_file):
        key = opened.revoke(key_id)
        record_command("revoke_key", _described(key))
    if as_json:
        click.echo(json.dumps(_facts(key), indent=2, ensure_ascii=False))
    else:
        click.echo(f"API key {key.key_id} of {key.name} is revoked.")


@click.group()
def gateway() -> None:
    """Serve the REST contract and Dagster's UI."""


@gateway.command()
def serve() -> None:
    """Serve the gateway until it is told to stop (SIGTERM or Ctrl-C)."""
    from constellation_docker.gateway.server import serve as serve_gateway
    from constellation_docker.settings import load_settings

    serve_gateway(load_settings())


def moment_of(text: str, now: datetime) -> datetime:
    """When something ends.

    Args:
        text: A span from now on (`90d`, `12h`, `30m`), a day (its end) or a moment in ISO 8601; UTC by default.
        now: The time.

    Raises:
        InvalidInput: It is none of these.
    """
    if span := _SPAN.fullmatch(text):
        return now + timedelta(**{_UNITS[span[2]]: int(span[1])})
    try:
        moment = datetime.fromisoformat(text)
        if len(text) == len("2027-01-31"):
            moment += timedelta(days=1)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(
            f"{text!r} is no moment.", remedy="Write 90d, 12h, 2027-01-31 or 2027-01-31T12:00+01:00."
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@contextmanager
def _keys() -> Iterator[tuple[ApiKeys, Settings]]:
    from constellation_docker.cards.store import open_store
    from constellation_docker.gateway.access.api_keys import ApiKeys
    from constellation_docker.settings import load_settings

    settings = load_settings()
    with open_store(settings) as store:
        yield ApiKeys(store.database), settings


def _named(key: ApiKey) -> list[str] | None:
    return None if key.environments is None else sorted(key.environments) or ["none"]


def _described(key: ApiKey) -> str:
    places = ", ".join(_named(key) or ["as the role"])
    return f"{key.key_id} of {key.name} ({key.role}; {places})"


def _facts(key: ApiKey) -> dict[str, Any]:
    moments = {
        "created_at": key.created_at,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
        "revoked_at": key.revoked_at,
    }
    return {
        "key_id": key.key_id,
        "name": key.name,
        "role": key.role.value,
        "environments": None if key.environments is None else sorted(key.environments),
        **{name: moment.isoformat() if moment else None for name, moment in moments.items()},
    }
