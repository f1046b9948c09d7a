"""What the product promises in figures, measured: ratios between things timed side by side in one run."""
