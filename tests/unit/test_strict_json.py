"""The depth of JSON, found without parsing."""

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from iidq.strict_json import DEEPEST, is_too_deep

MIB = 1 << 20

values = st.recursive(
    st.none() | st.booleans() | st.text() | st.text('"\\[]{}'),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('"\\[]{}a', max_size=4), inner, max_size=3),
)


def wrapped(value: Any, levels: int) -> bytes:
    return b"[" * levels + json.dumps(value, ensure_ascii=False).encode() + b"]" * levels


def depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@given(values)
def test_the_limit_is_exact(value: Any) -> None:
    """A document of the deepest allowed level is accepted, a deeper document is not, for any strings."""
    levels = DEEPEST - depth(value)
    assert not is_too_deep(wrapped(value, levels))
    assert is_too_deep(wrapped(value, levels + 1))


@given(values)
def test_indentation_does_not_matter(value: Any) -> None:
    """Spaces, line ends and the order of siblings change nothing."""
    document = json.dumps([value] * (DEEPEST + 1), indent=1).encode()
    assert is_too_deep(document) == (1 + depth(value) > DEEPEST)


@pytest.mark.parametrize(
    ("document", "too_deep"),
    [
        (b"", False),
        (b"[" * MIB, True),
        (b'{"a":' * (MIB // 5), True),
        (b"[]" * (MIB // 2), False),
        (b'"' * MIB, False),
        (b"\\" * MIB, False),
        (b'"' + b"\\" * MIB, False),
        (b'"' + b"[" * MIB, False),
        (b'"' + b"[" * MIB + b'"', False),
        (b'"\\\\"' * (MIB // 4) + b"[" * 200, True),
        (b"]" * MIB, False),
        (b'["' * (MIB // 2), True),
        (b"\xff\x00" * (MIB // 2), False),
    ],
)
def test_hostile_documents_are_answered(document: bytes, too_deep: bool) -> None:
    """A mebibyte of brackets, quotes, backslashes or noise, ended or not, has the right answer in a single pass."""
    assert is_too_deep(document) is too_deep


@example(b'\\"' * (MIB // 2) + b"[" * 200)
@example(b'"\\"' * (MIB // 3) + b"[" * 200)
@example(b'"[' * (MIB // 2))
@example(b'"[' * (MIB // 2) + b'"')
@given(st.binary(max_size=2000) | st.text('"\\[]{}', max_size=2000).map(str.encode))
def test_what_is_let_through_can_be_parsed(document: bytes) -> None:
    """An accepted document is parsed, or refused for another reason than depth."""
    if is_too_deep(document):
        return
    try:
        json.loads(document.decode())
    except ValueError:
        return


@pytest.mark.parametrize("reader", ["manifest", "jsonrpc", "command line"])
def test_a_raised_recursion_limit_does_not_end_the_process(reader: str) -> None:
    """Deep documents are refused also with a recursion limit beyond the stack, as set by some libraries."""
    reading = {
        "manifest": "from iidq.provenance.manifest import parse_manifest as read",
        "jsonrpc": "from iidq.provenance.ethereum.jsonrpc import decode\ndef read(body): return decode(body, [1])",
        "command line": "from iidq.cli.api_client import _object\ndef read(body): print(_object(body))",
    }[reader]
    code = (
        f"import sys\n{reading}\nfrom iidq.errors import IidqError\nsys.setrecursionlimit(10_000_000)\n"
        "for opening in (b'[', b'{\"a\":', b'[[{\"\\\\\"\":'):\n"
        "    try:\n        read(opening * 80_000)\n"
        "    except IidqError as fault:\n        print(fault.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    expected = {"manifest": "manifest.too_deep", "jsonrpc": "rpc.not_json", "command line": "{}"}[reader]
    assert (done.returncode, done.stdout.split()) == (0, [expected] * 3)


def test_other_encodings_of_json_hide_no_depth() -> None:
    """UTF-16 is refused before parsing: half a letter can look like a quotation mark."""
    code = (
        "import sys\nfrom iidq.provenance.ethereum.jsonrpc import decode\nfrom iidq.errors import RpcFault\n"
        "sys.setrecursionlimit(10_000_000)\n"
        "body = ('[\"\\u2200\"' + ',' + '[' * 100_000).encode('utf-16-le')\n"
        "try:\n    decode(body, [1])\nexcept RpcFault as fault:\n    print(fault.code)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "rpc.not_json")
