"""Benchmarks: the comparison with rival clients, memory, progress, and microbenchmarks (test_*.py)."""
