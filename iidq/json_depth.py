"""How deeply a JSON text is nested, found out before it is parsed. Pure.

Python's parser recurses once per level and relies on the interpreter's recursion limit, which any imported library
may raise (py-evm does, to more than the stack can bear); a hostile document then ends the process, not the call.

``pydantic_core.from_json`` bounds the depth itself and reads what others answer. It cannot replace this where repeated
names are refused (requests, manifests), or where 500 levels are read (rows).
"""

import re

DEEPEST = 100
"""Levels that a document of ours may have: manifests need fewer than ten."""

# A string, also an unfinished one, or one bracket; brackets inside strings do not nest.
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*+"?|[\[{]|[\]}]', re.DOTALL)


def is_too_deep(document: bytes, deepest: int = DEEPEST) -> bool:
    """Whether arrays and objects are nested more than ``deepest`` levels; any bytes will do, JSON or not."""
    if document.count(b"[") + document.count(b"{") <= deepest:
        return False
    depth = 0
    for token in _TOKEN.finditer(document):
        match token[0]:
            case b"[" | b"{":
                depth += 1
                if depth > deepest:
                    return True
            case b"]" | b"}":
                depth -= 1
    return False
