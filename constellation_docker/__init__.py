"""From a model card to a healthy inference endpoint, kept healthy: a Dagster code location.

Rooms, and the one way their arrows point: `defs`, `gateway` → `cards`, `packaging`, `compose`,
`rollout` → `engine`. `serving` ships inside images and imports nothing from the rest.
"""
