"""Load generator, clocks, statistics, memory and host facts; `python -m edgekit.profiling JOB/`."""
