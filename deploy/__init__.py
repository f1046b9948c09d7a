"""Running the product on one machine: bootstrap, a local Dagster, the demo."""
