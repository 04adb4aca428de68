"""Benchmarks: figures of iidq, and the limits of the same machine and the same Postgres.

Order of reading: ``catalogue`` (figures, units and references), ``figures/`` (measurements), ``processes/`` (programs
under load), ``record`` (runs → value, range and ratios).
"""
