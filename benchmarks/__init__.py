"""Benchmarks: ``python -m benchmarks [NAME …]``; RESULTS.md has the figures, budgets.toml what must not grow."""
