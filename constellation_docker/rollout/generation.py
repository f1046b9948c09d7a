"""What a replica's container is created from: the Engine API's body for a Compose service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from constellation_docker.compose import Service, config_hash, labels
from constellation_docker.compose.durations import nanoseconds
from constellation_docker.compose.model import Variable


def render_container(
    service: Service,
    *,
    project: str,
    name: str,
    number: int,
    secrets: Mapping[str, str],
    image_id: str,
    compose_path: str,
    own_labels: Mapping[str, str],
    aliases: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The body of `POST /containers/create`, as stock Compose would send it for the same service.

    Args:
        service: The service.
        project: The Compose project.
        name: The container's name.
        number: Its number within the service.
        secrets: The values behind the service's references, by name in the container.
        image_id: Id of the service's image on this engine.
        compose_path: Where the Compose file lies.
        own_labels: Labels of this container alone, such as the revision.
        aliases: Its further names in the network.

    Source: docker/compose, `pkg/compose/create.go` (`getCreateConfigs`).
    """
    network = f"{project}_default"
    environment = {
        key: secrets[key] if isinstance(value, Variable) else value
        for key, value in service.environment.items()
    }
    body: dict[str, Any] = {
        "Image": service.image,
        "Env": [f"{key}={value}" for key, value in sorted(environment.items())],
        "Labels": {
            **service.labels,
            **labels.container_labels(
                project=project,
                service=service.name,
                number=number,
                config_hash=config_hash(service, secrets),
                image_id=image_id,
                compose_path=compose_path,
            ),
            **own_labels,
        },
        "StopTimeout": round(service.stop_grace_period),
        "HostConfig": _host_config(service, network),
        "NetworkingConfig": {
            "EndpointsConfig": {network: {"Aliases": list(dict.fromkeys((name, service.name, *aliases)))}}
        },
    }
    if service.user:
        body["User"] = service.user
    if service.entrypoint is not None:
        body["Entrypoint"] = list(service.entrypoint)
    if service.command is not None:
        body["Cmd"] = list(service.command)
    if service.ports:
        body["ExposedPorts"] = {f"{port.target}/tcp": {} for port in service.ports}
    if check := service.healthcheck:
        body["Healthcheck"] = {
            "Test": list(check.test),
            "Interval": nanoseconds(check.interval),
            "Timeout": nanoseconds(check.timeout),
            "Retries": check.retries,
            "StartPeriod": nanoseconds(check.start_period),
        }
    return body


def _host_config(service: Service, network: str) -> dict[str, Any]:
    limits, reserved = service.limits, service.reservations
    mounts = dict(mount.partition(":")[::2] for mount in service.tmpfs)
    config: dict[str, Any] = {
        "NetworkMode": network,
        "RestartPolicy": {"Name": service.restart},
        "CapAdd": list(service.cap_add),
        "CapDrop": list(service.cap_drop),
        "SecurityOpt": list(service.security_opt),
        "ReadonlyRootfs": service.read_only,
        "Tmpfs": mounts,
        "LogConfig": {"Type": service.logging.driver, "Config": dict(service.logging.options)},
        "PortBindings": {
            f"{port.target}/tcp": [
                {"HostIp": port.host_ip, "HostPort": str(port.published) if port.published else ""}
            ]
            for port in service.ports
        },
    }
    if limits.memory:
        config["Memory"] = limits.memory
    if limits.cpus:
        config["NanoCpus"] = nanoseconds(limits.cpus)
    if limits.pids:
        config["PidsLimit"] = limits.pids
    if reserved.memory:
        config["MemoryReservation"] = reserved.memory
    if reserved.gpus:
        config["DeviceRequests"] = [{"Count": reserved.gpus, "Capabilities": [["gpu"]]}]
    return config
