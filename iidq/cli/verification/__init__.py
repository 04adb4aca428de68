"""Commands about content: verify, check-proof, register."""
