"""Addresses, signatures, JSON-RPC and the content registry."""
