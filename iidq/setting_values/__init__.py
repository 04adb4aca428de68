"""The texts that settings can have, each with the function that reads it. Pure."""
