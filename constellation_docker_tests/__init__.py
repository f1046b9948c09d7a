"""Tests, room by room, on real parts: engines, registries, databases and servers that the tests start themselves."""
