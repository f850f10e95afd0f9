"""Benchmarks, run as ``python -m benchmarks.<name>``; nothing may import them."""
