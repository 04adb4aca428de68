"""One module per group of HTTP endpoints."""
