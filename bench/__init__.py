"""Benchmarks of gyre: docs/benchmarks.md says what is measured and how."""
