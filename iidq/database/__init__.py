"""Connections to Postgres, its error codes, and the migrations."""
