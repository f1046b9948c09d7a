"""Everything is in pyproject.toml; this file keeps `pip install -e .` working with older tools."""

from setuptools import setup

setup()
