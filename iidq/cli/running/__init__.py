"""Commands that start processes: serve, up, demo."""
