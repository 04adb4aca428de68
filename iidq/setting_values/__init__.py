"""Parsers of the values of settings."""
