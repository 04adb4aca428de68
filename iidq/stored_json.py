"""Reads JSON values of rows, which plain SQL may have filled with more than Python can hold. Pure.

A jsonb number may have 130,000 digits, and arrays may be nested thousands of levels deep. One such value must not fail
the statement that reads it together with other rows.
"""

import json
import math
from typing import Any, Final

from iidq.json_depth import is_too_deep

# Half of what Python's parser and encoder bear by default.
_DEEPEST: Final = 500

UNREADABLE: Final = "the stored JSON is nested too deeply, or has a number that is too large"


def read_stored_json(document: str | bytes) -> Any:
    """Return the value, or an object whose member ``unreadable`` says why there is none."""
    data = document.encode() if isinstance(document, str) else document
    try:
        if not is_too_deep(data, _DEEPEST):
            return json.loads(data, parse_float=_finite)
    except ValueError:
        # The integer has more digits than sys.get_int_max_str_digits(), or the float would be infinite.
        pass
    return {"unreadable": UNREADABLE}


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(text)
    return number
