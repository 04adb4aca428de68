"""Benchmarks: figures of iidq, and the limits of the same machine and the same Postgres.

Read in this order: ``catalogue`` (figures, units and references), ``figures/`` (measurements), ``processes/``
(programs under load), ``record`` (runs → value, range and ratios).
"""
