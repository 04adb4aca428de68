"""Benchmarks: what iidq does per second, beside what the same machine and the same Postgres can do at all.

Read in this order: ``catalogue`` (every figure, its unit and what it is compared with), ``figures/`` (how each is
measured), ``processes/`` (the programs that are started for that), ``record`` (runs → value, range and ratios).
"""
