"""`constellation-docker balancer …`."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from constellation_docker.errors import InvalidInput

if TYPE_CHECKING:
    from constellation_docker.rollout.certificates import Certificate
    from constellation_docker.settings import EnvironmentSettings

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@click.group()
def balancer() -> None:
    """Show and renew certificates of an environment's balancer."""


@balancer.command("ca")
@click.argument("environment")
def show_authority(environment: str) -> None:
    """Print the certificate authority's certificate as PEM: what clients of ENVIRONMENT must trust."""
    from constellation_docker.rollout.certificates import private_authority

    authority = private_authority(environment, _settings(environment))
    click.echo(authority.certificate(datetime.now(UTC)), nl=False)


@balancer.command("certificate")
@click.argument("environment")
@as_json
def show_certificate(environment: str, as_json: bool) -> None:
    """Show for which names, and until when, the certificate of ENVIRONMENT is good."""
    from constellation_docker.rollout.certificates import resolve_certificate

    found = resolve_certificate(environment, _settings(environment))
    if found is None:
        raise InvalidInput(
            f"The environment {environment} serves plain HTTP.",
            remedy=f"Set environments.{environment}.tls.",
            environment=environment,
        )
    _show(environment, found, as_json)


@balancer.command()
@click.argument("environment")
@as_json
def renew(environment: str, as_json: bool) -> None:
    """Issue a new certificate for ENVIRONMENT, or read its own one again, and put it in force without a reload."""
    from constellation_docker.compose import compile_environment
    from constellation_docker.engine import Engine
    from constellation_docker.rollout.certificates import renew_certificate, resolve_certificate
    from constellation_docker.settings import load_settings

    settings = _settings(environment)
    # What the balancer's certificate needs of the file is its project and its settings; no service is touched.
    file = compile_environment(environment, settings, [], balancer_image="balancer")
    engine = Engine.connect(settings.engine_url or load_settings().build.engine_url)
    found = renew_certificate(file, engine=engine, settings=settings, is_renewed=True)
    found = found or resolve_certificate(environment, settings)
    if found is None:
        raise InvalidInput(
            f"The environment {environment} serves plain HTTP.",
            remedy=f"Set environments.{environment}.tls.",
            environment=environment,
        )
    _show(environment, found, as_json)


def _show(environment: str, certificate: Certificate, as_json: bool) -> None:
    if as_json:
        facts = {
            "environment": environment,
            "names": certificate.names,
            "not_after": certificate.not_after.isoformat(),
        }
        click.echo(json.dumps(facts))
    else:
        click.echo(
            f"{environment}: {', '.join(certificate.names)}; good until {certificate.not_after:%Y-%m-%d %H:%M} UTC."
        )


def _settings(environment: str) -> EnvironmentSettings:
    from constellation_docker.settings import load_settings

    return load_settings().environment(environment)
