"""The command line. Each group of commands lies in the room that it is about; this file only finds them.

A failure is one line on standard error (`{"error": …}` with `--json`), for a card with several problems one line for
each, and exit status 1; wrong usage is 2.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from constellation_docker.errors import ConstellationError

# Command → "module:attribute" and its help. Modules are imported when their command runs, so that a command
# never waits for what another one needs.
COMMANDS: dict[str, tuple[str, str]] = {
    "balancer": (
        "constellation_docker.rollout.command_line:balancer",
        "Show and renew certificates of an environment's balancer.",
    ),
    "cards": (
        "constellation_docker.cards.command_line:cards",
        "Register, list, show and remove model versions.",
    ),
    "gateway": (
        "constellation_docker.gateway.access.command_line:gateway",
        "Serve the REST contract and Dagster's UI.",
    ),
    "keys": (
        "constellation_docker.gateway.access.command_line:keys",
        "Make, list and revoke the gateway's API keys.",
    ),
    "settings": ("constellation_docker.cli:settings", "Look at the settings."),
    "store": ("constellation_docker.cards.command_line:store", "Look after the card store's database."),
}


_SECRET_OPTION = re.compile(r"([?&][^=&]*(?:password|passwd|token|secret|key)[^=&]*=)[^&]*", re.IGNORECASE)


class LazyGroup(click.Group):
    """A group that imports a command only when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """One command, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.group(cls=LazyGroup)
@click.version_option(package_name="constellation-docker")
def constellation_docker() -> None:
    """From a model card to a healthy inference endpoint, kept healthy."""


@click.group()
def settings() -> None:
    """Look at the settings."""


@settings.command("show")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def show_settings(as_json: bool) -> None:
    """Show every setting with its present value. Secrets are references, and passwords in addresses are hidden."""
    from constellation_docker.settings import load_settings

    values = without_passwords(load_settings().model_dump(mode="json"))
    if as_json:
        click.echo(json.dumps(values, indent=2, ensure_ascii=False))
        return
    for name, value in _flat(values):
        click.echo(f"{name} = {json.dumps(value, ensure_ascii=False)}")


def without_passwords(value: Any) -> Any:
    """JSON values with the password of every address in them replaced by `***`."""
    if isinstance(value, dict):
        return {name: without_passwords(item) for name, item in value.items()}
    if isinstance(value, list):
        return [without_passwords(item) for item in value]
    if isinstance(value, str) and "://" in value:
        scheme, _, rest = value.partition("://")
        authority, slash, path = rest.partition("/")
        login, at, host = authority.rpartition("@")
        user, colon, _ = login.partition(":")
        hidden = f"{user}:***" if colon else login
        return _SECRET_OPTION.sub(r"\1***", f"{scheme}://{hidden}{at}{host}{slash}{path}")
    return value


def _flat(values: dict[str, Any], above: str = "") -> list[tuple[str, Any]]:
    lines: list[tuple[str, Any]] = []
    for name, value in values.items():
        if isinstance(value, dict) and value:
            lines += _flat(value, f"{above}{name}.")
        else:
            lines.append((f"{above}{name}", value))
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and end the process with its status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        constellation_docker.main(args=given, prog_name="constellation-docker", standalone_mode=False)
    except ConstellationError as error:
        if "--json" in given:
            about = {
                "code": error.code,
                "message": error.message,
                "remedy": error.remedy,
                "details": error.details,
            }
            click.echo(json.dumps({"error": about}, ensure_ascii=False, default=str), err=True)
        else:
            click.echo(f"Error: {' '.join(str(error).split())}", err=True)
            # The sentence tells the first.
            for problem in error.details.get("problems", [])[1:]:
                click.echo(f"  also {problem['field']}: {problem['problem']}", err=True)
        sys.exit(1)
    except click.Abort:
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader (`| head`) has what it wanted; Python would complain once more when it flushes.
        sys.stderr.close()
        sys.exit(0)


if __name__ == "__main__":
    main()
