"""Tests of bootstrap and demo."""
