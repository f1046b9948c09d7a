"""The benchmarks compute and record what they say."""
