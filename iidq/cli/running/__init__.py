"""Commands with processes: demo, up, serve."""
