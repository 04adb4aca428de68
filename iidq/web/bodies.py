"""From a request's body to a checked submission: which form it has, how long it may take, how much is read."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from iidq.json_depth import is_too_deep
from iidq.web.parameters import HeaderValue, parse_header
from iidq.web.submission import Submission, SubmissionRules
from iidq.web.uploads import MAX_OVERHEAD_BYTES, FormReader, malformed, too_large

IDLE_SECONDS: Final = 30.0
"""A client that sends nothing for this long is told so, and let go."""
MAX_JSON_BYTES: Final = 64 * 1024


async def read_submission(request: Request, rules: SubmissionRules, *, max_upload_bytes: int) -> Submission:
    """The request's fields, from ``multipart/form-data`` (hashing the file) or ``application/json``.

    Raises :class:`HTTPException` 400, 408, 413 or 415 for the body, :class:`InvalidInput` for its fields and
    :class:`ClientDisconnect` where the client went away.
    """
    content_type = _content_type(request)
    if content_type.value == "multipart/form-data":
        reader = FormReader(content_type, rules.checks, max_upload_bytes=max_upload_bytes)
        if _declared_bytes(request) > max_upload_bytes + MAX_OVERHEAD_BYTES:
            raise too_large(f"the file may have {max_upload_bytes} bytes")
        async for chunk in _chunks(request):
            reader.feed(chunk)
        form = reader.finish()
        return rules.read(form.fields, form.upload, form.faults)
    return rules.read(_json_object(await _json_body(request)))


async def read_optional_json(request: Request) -> dict[str, object]:
    """The members of a JSON object, none for an empty body; raises :class:`HTTPException` 400, 408 or 413."""
    body = await _json_body(request)
    return _json_object(body) if body else {}


async def _json_body(request: Request) -> bytes:
    body = bytearray()
    if _declared_bytes(request) > MAX_JSON_BYTES:
        raise too_large(f"a JSON body may have {MAX_JSON_BYTES} bytes")
    async for chunk in _chunks(request):
        body += chunk
        if len(body) > MAX_JSON_BYTES:
            raise too_large(f"a JSON body may have {MAX_JSON_BYTES} bytes")
    return bytes(body)


def _json_object(body: bytes) -> dict[str, object]:
    if is_too_deep(body):
        raise malformed("the JSON is nested too deeply; expected an object of plain values")
    try:
        value = json.loads(body.decode(), object_pairs_hook=_unique)
    except ValueError as error:
        raise malformed("expected a JSON object in UTF-8, with each name once") from error
    if not isinstance(value, dict):
        raise malformed("expected a JSON object")
    return {name: given for name, given in value.items() if given is not None}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a name stands twice")
    return value


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    while True:
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                message = await request.receive()
        except TimeoutError:
            raise HTTPException(408, f"Request Timeout: no byte of the body came for {IDLE_SECONDS:.0f} s") from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body", False):
            return


def _content_type(request: Request) -> HeaderValue:
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, "Unsupported Media Type: send the body without a Content-Encoding")
    try:
        content_type = parse_header(request.headers.get("content-type", ""))
    except ValueError as error:
        raise malformed("the Content-Type cannot be read") from error
    if content_type.value not in ("multipart/form-data", "application/json"):
        raise HTTPException(415, "Unsupported Media Type: expected multipart/form-data or application/json")
    return content_type


def _declared_bytes(request: Request) -> int:
    declared = request.headers.get("content-length", "")
    return int(declared) if declared.isascii() and declared.isdigit() and len(declared) < 20 else 0
