"""The portable proof: its canonical form, its signature, its check."""
