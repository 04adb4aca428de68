"""Development chains: anvil, or py-evm with the JSON-RPC methods of demo and tests."""
