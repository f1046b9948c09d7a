"""The way in for people and programs outside: the REST contract, over Dagster's GraphQL.

May touch: the card store, Dagster's webserver, and the environments' engines for their containers' logs. Imports no
Dagster. It holds no state of its own: what is wanted goes to the store, what happened is read from runs by tags.

* `dagster_client` (over `graphql`) is the typed client, and the reference for backends in other languages.
* `application` is the whole gateway, `router` the calls alone, `ports` what they work with, `access` who may what.
* `statuses` decides what a status is, `overview` reads what it decides from, `launches` starts each run once.
* `ui_path` passes on Dagster's own UI to those who are logged in.
"""

from constellation_docker.gateway.dagster_client import (
    DagsterClient,
    DagsterUnavailable,
    LaunchRefused,
    LogEntry,
    Run,
)

__all__ = ["DagsterClient", "DagsterUnavailable", "LaunchRefused", "LogEntry", "Run"]
