"""The way in for other programs: Dagster's GraphQL, through one small typed client."""

from constellation_docker.gateway.dagster_client import (
    DagsterClient,
    DagsterUnavailable,
    LaunchRefused,
    LogEntry,
    Run,
)

__all__ = ["DagsterClient", "DagsterUnavailable", "LaunchRefused", "LogEntry", "Run"]
