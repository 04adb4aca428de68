"""Values for schemathesis, for the formats outside JSON Schema.

The module runs in the process of schemathesis (``SCHEMATHESIS_HOOKS``); the test passes the addresses by variables.
"""

import os
import string
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import schemathesis
from hypothesis import strategies as st

from iidq.provenance.ipfs.cid import parse_cid
from iidq.queue.read.paging import Cursor
from iidq.web.request.submission import MAX_CHAIN_ID
from iidq.web.request.uploads import file_name_fault

MANIFEST = os.environ["TEST_MANIFEST_URI"]
"""The URI of an existing manifest."""
MANIFEST_SERVER = os.environ["TEST_MANIFEST_SERVER"]
"""The base URL of the manifest server."""
RPC_URL = os.environ["TEST_RPC_URL"]
"""The RPC URL of the chain."""

names = st.text(string.ascii_letters + string.digits + "-_.~", min_size=1, max_size=20)


def _is_cid(text: str) -> bool:
    try:
        parse_cid(text)
    except Exception:
        return False
    return True


cids = st.from_regex(r"Qm[1-9A-HJ-NP-Za-km-z]{44}", fullmatch=True).filter(_is_cid)
file_names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=60).filter(
    lambda name: not file_name_fault(name)
)
cursors = st.builds(
    Cursor,
    st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)),
    st.uuids().map(lambda u: UUID(str(u))),
).map(Cursor.encode)

for name, values in {
    "manifest-uri": st.just(MANIFEST)
    | cids.map("ipfs://{}".format)
    | names.map(f"{MANIFEST_SERVER}/manifests/{{}}".format),
    "callback-url": names.map(f"{MANIFEST_SERVER}/manifests/{{}}".format),
    "rpc-url": st.just(RPC_URL),
    "file-name": file_names,
    "cursor": cursors,
    "chainId-text": st.integers(1, MAX_CHAIN_ID).map(str),
}.items():
    schemathesis.openapi.format(name, values)


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Remove one of two parameters allowed only alone, because JSON Schema for such pairs is hard to read."""
    if isinstance(case.query, dict) and "cursor" in case.query:
        # A page takes a cursor or an offset.
        case.query.pop("offset", None)
    if isinstance(case.body, dict) and case.body.get("callbackUrl"):
        # A shared job may belong to another caller.
        case.body.pop("share", None)
