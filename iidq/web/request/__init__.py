"""Reading requests: bodies, uploads, parameters and the rules for each field."""
