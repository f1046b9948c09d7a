"""Dagster's side of the product, and nothing else: thin assets, checks, jobs, sensors and schedules.

What they do lies in the domain rooms (`cards`, `packaging`, `compose`, `rollout`), which know no Dagster.
An asset here reads its inputs, calls one domain function, and turns the typed result into metadata.
"""
