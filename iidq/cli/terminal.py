"""Texts of strangers on a terminal: errors, file names and messages that came from manifests, servers or rows."""


def printable(line: str) -> str:
    """``line`` with nothing in it that could steer the terminal."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)
