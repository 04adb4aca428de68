"""Logs, metrics, traces and the access log."""
