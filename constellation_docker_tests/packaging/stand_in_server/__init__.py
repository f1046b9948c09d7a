"""A server in the place of the real one, which does wrong whatever `BEHAVIOUR` says."""

__version__ = "0.0.1"
