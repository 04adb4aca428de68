"""Programs started by the figures, each in a separate process; ``lines`` is the protocol."""
