"""TCP and UNIX socket benchmarks: servers in Python and C, a load generator in C."""
