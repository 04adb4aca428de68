"""Admission of requests: client address, keys, rate limits, CORS."""
