"""Child processes: workloads of the paired runner (bench/micro)."""
