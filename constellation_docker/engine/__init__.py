"""The one door to Docker engines. Nothing else in the product imports docker-py.

It connects, builds, pulls, pushes, and handles containers, networks and volumes; whatever goes wrong comes out as one
of the errors below, each saying whether it may pass by itself. It knows nothing of models, cards or Dagster.
"""

from constellation_docker.engine.address import EngineAddress, resolve_engine_address
from constellation_docker.engine.build import BuildResult
from constellation_docker.engine.connection import EngineVersion
from constellation_docker.engine.engine import Engine
from constellation_docker.engine.errors import (
    BuildCancelled,
    BuildFailed,
    BuildTimedOut,
    CallCancelled,
    Conflict,
    DeadlineExceeded,
    DigestMismatch,
    DiskFull,
    EngineError,
    EngineForbidden,
    EngineIncompatible,
    EngineUnreachable,
    ImageNotFound,
    ImageNotInRegistry,
    NotFound,
    PullFailed,
    PushFailed,
    RegistryDenied,
    RegistryError,
    RegistryUnreachable,
    RegistryUntrusted,
)
from constellation_docker.engine.events import Event
from constellation_docker.engine.execution import ExecResult
from constellation_docker.engine.images import ImageFacts, ImageSummary
from constellation_docker.engine.reference import ImageReference
from constellation_docker.engine.registry import Credentials
from constellation_docker.engine.trace import BuildStep

__all__ = [
    "BuildCancelled",
    "BuildFailed",
    "BuildResult",
    "BuildStep",
    "BuildTimedOut",
    "CallCancelled",
    "Conflict",
    "Credentials",
    "DeadlineExceeded",
    "DigestMismatch",
    "DiskFull",
    "Engine",
    "EngineAddress",
    "EngineError",
    "EngineForbidden",
    "EngineIncompatible",
    "EngineUnreachable",
    "EngineVersion",
    "Event",
    "ExecResult",
    "ImageFacts",
    "ImageNotFound",
    "ImageNotInRegistry",
    "ImageReference",
    "ImageSummary",
    "NotFound",
    "PullFailed",
    "PushFailed",
    "RegistryDenied",
    "RegistryError",
    "RegistryUnreachable",
    "RegistryUntrusted",
    "resolve_engine_address",
]
