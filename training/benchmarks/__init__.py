"""Benchmarks: one file per table."""
