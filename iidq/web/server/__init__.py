"""The HTTP server: protocol bounds, closing connections, process limits."""
