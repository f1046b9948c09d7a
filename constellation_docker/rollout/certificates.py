"""Which certificate an environment's balancer shows, and keeping that one in force without a reload."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlsplit

from constellation_docker.compose import ComposeFile
from constellation_docker.engine import Engine
from constellation_docker.errors import InvalidInput
from constellation_docker.rollout.certificate_file import Certificate, InvalidCertificate, parse_certificate
from constellation_docker.rollout.haproxy import HaproxyBalancer
from constellation_docker.rollout.observed import balancer_name
from constellation_docker.rollout.private_ca import PrivateAuthority
from constellation_docker.settings import EnvironmentSettings, resolve_secret

__all__ = [
    "Certificate",
    "InvalidCertificate",
    "certificate_names",
    "private_authority",
    "renew_certificate",
    "resolve_certificate",
]

_EVERYWHERE = {"0.0.0.0", "::"}


def resolve_certificate(
    environment: str,
    settings: EnvironmentSettings,
    *,
    resolve: Callable[[str], str] = resolve_secret,
    now: datetime | None = None,
    is_renewed: bool = False,
) -> Certificate | None:
    """The certificate that an environment's balancer is to show; None where it serves plain HTTP.

    Args:
        environment: The environment's name.
        settings: Its settings.
        resolve: Gives the secret behind a reference.
        now: The time; None: the clock's.
        is_renewed: Whether the project's own authority is to issue a new one in any case.

    Raises:
        InvalidCertificate: The environment's own certificate cannot be used, or the authority's files are damaged.
        InvalidInput: The reference cannot be read.
    """
    tls = settings.tls
    if tls is None:
        return None
    if tls.certificate is not None:
        return parse_certificate(resolve(tls.certificate), origin=tls.certificate)
    moment = now or datetime.now(UTC)
    authority = private_authority(environment, settings)
    names = certificate_names(settings)
    return authority.issue(names, days=tls.leaf_days, now=moment, is_renewed=is_renewed)


def renew_certificate(
    compose_file: ComposeFile,
    *,
    engine: Engine,
    settings: EnvironmentSettings,
    resolve: Callable[[str], str] = resolve_secret,
    is_renewed: bool = False,
    on_line: Callable[[str], None] = lambda line: None,
) -> Certificate | None:
    """See to it that a balancer shows the certificate that it should: a renewed one is put in force, without a reload.

    Args:
        compose_file: The environment's Compose file.
        engine: The environment's engine.
        settings: The environment's settings.
        resolve: Gives the secret behind a reference.
        is_renewed: Whether the project's own authority is to issue a new one in any case.
        on_line: Told of one that has run out or soon will.

    Returns:
        The certificate that took the place of another one; None where nothing had to be done.

    Raises:
        InvalidCertificate: There is no usable certificate; the balancer keeps the one that it has.
        BalancerUnavailable: The balancer does not run.
        BalancerRefused: HAProxy does not accept the certificate.
    """
    certificate = resolve_certificate(
        compose_file.environment, settings, resolve=resolve, is_renewed=is_renewed
    )
    if certificate is None:
        return None
    if warning := certificate.describe_end(datetime.now(UTC)):
        on_line(f"{compose_file.environment}: {warning}")
    balancer = HaproxyBalancer(engine, balancer_name(compose_file.project), compose_file.balancer_options)
    return certificate if balancer.install_certificate(certificate.pem) else None


def private_authority(environment: str, settings: EnvironmentSettings) -> PrivateAuthority:
    """The project's own certificate authority for an environment.

    Raises:
        InvalidInput: The environment serves plain HTTP, or shows a certificate of its own.
    """
    tls = settings.tls
    if tls is None or tls.certificate is not None:
        raise InvalidInput(
            f"The environment {environment} shows no certificate of the project's own authority.",
            remedy=f"Set environments.{environment}.tls, without a certificate.",
            environment=environment,
        )
    if tls.folder is None:
        raise InvalidInput(
            f"Nobody said where the certificate authority of {environment} lies.",
            remedy=f"Set environments.{environment}.tls.folder.",
            environment=environment,
        )
    return PrivateAuthority(environment, tls.folder)


def certificate_names(settings: EnvironmentSettings) -> tuple[str, ...]:
    """The host names and addresses under which an environment's balancer is reached, the most public one first."""
    public = urlsplit(settings.public_url).hostname if settings.public_url else None
    bound = None if settings.bind in _EVERYWHERE else settings.bind
    given = settings.tls.names if settings.tls else ()
    names = (public, *given, bound, "localhost", "127.0.0.1", "balancer")
    return tuple(dict.fromkeys(name for name in names if name))
