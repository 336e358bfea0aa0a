"""Speed and memory, measured beside others: see README.md. `python -m benchmarks` runs everything."""
