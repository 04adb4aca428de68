"""Commands that run processes: demo, up, serve."""
