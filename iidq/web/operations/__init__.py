"""The operators' pages: access, sessions, snapshot."""
