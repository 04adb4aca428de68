"""Redis as an optional accelerator: signed cache entries, hints, rate counts."""
