"""Commands about one file or proof: verify, register, check-proof."""
