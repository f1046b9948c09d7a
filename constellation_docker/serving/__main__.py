"""`python -m constellation_serving`: reads the configuration, serves, and exits with the server's code."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .config import Config
    from .model import Model


def _load(config: Config) -> Model:
    from .loading import load_model

    return load_model(config)


def main() -> int:
    """Run the server. Returns the exit code."""
    # The kernel drops signals that process 1 has no handler for: have one before the imports.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))

    from .config import ConfigError, read_config
    from .logs import Log
    from .server import EXIT_CONFIG, serve

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
