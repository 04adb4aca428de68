"""A development chain in one process, with the JSON-RPC methods that demo and tests need."""
