"""What counts as text among the values that callers send. Pure."""

from typing import TypeGuard


def is_plain_text(value: object, max_length: int | None = None) -> TypeGuard[str]:
    """Whether ``value`` is text that UTF-8 and Postgres can hold, of at most ``max_length`` characters.

    NUL and halves of surrogate pairs cannot be held; JSON can spell both.
    """
    if not isinstance(value, str) or "\0" in value or (max_length is not None and len(value) > max_length):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
