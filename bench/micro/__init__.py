"""Task and event loop benchmarks inside one process."""
