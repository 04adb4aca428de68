"""Programs that the figures start, each in a process of its own; ``lines`` is their protocol."""
