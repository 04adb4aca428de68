"""HTTP requests to URLs that callers name: every address is checked before a connection is made."""
