"""The portable proof: canonical form, signature, check."""
