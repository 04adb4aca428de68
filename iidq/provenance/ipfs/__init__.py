"""Content ids, blocks and gateways."""
