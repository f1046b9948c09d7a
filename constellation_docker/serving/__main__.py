"""`python -m constellation_serving`: reads the configuration, serves, and exits with the server's code."""

from __future__ import annotations

import os

from .config import Config, ConfigError, read_config
from .logs import Log
from .model import Model
from .server import EXIT_CONFIG, serve


def _load(config: Config) -> Model:
    from .loading import load_model

    return load_model(config)


def main() -> int:
    """Run the server. Returns the exit code."""
    log = Log()
    try:
        config = read_config()
    except ConfigError as problem:
        log.event("invalid_configuration", level="error", message=str(problem))
        return EXIT_CONFIG
    return serve(config, _load, log)


if __name__ == "__main__":
    # Not `sys.exit`: a model thread inside native code would be torn down under its feet, and crash.
    os._exit(main())
