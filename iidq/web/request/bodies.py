"""Read a request's body into a checked submission, within bounds of time and size."""

import asyncio
import json
from collections.abc import AsyncIterator
from time import perf_counter
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from iidq.observability import metrics
from iidq.strict_json import is_too_deep, members_once
from iidq.web.request.header_fields import HeaderValue, parse_header
from iidq.web.request.submission import Submission, SubmissionRules
from iidq.web.request.uploads import MAX_OVERHEAD_BYTES, FormReader, malformed, too_large
from iidq.web.request_context import context_of
from iidq.web.server.direct import SinglePieceIO
from iidq.web.service import service_of

MIN_BYTES_PER_SECOND: Final = 1024
"""Slowest rate of a whole body, after ``REQUEST_IDLE_SECONDS``; slower clients would only occupy the server."""
MAX_JSON_BYTES: Final = 64 * 1024
"""Largest JSON body, but for a batch."""
THREAD_BYTES: Final = 128 * 1024
"""Smallest piece of an upload that a thread hashes; shorter pieces are hashed faster than a thread starts."""
_PLAIN_JSON: Final = "application/json"


async def read_submission(request: Request, rules: SubmissionRules, *, max_upload_bytes: int) -> Submission:
    """Return the submission in ``multipart/form-data`` (the file is hashed) or ``application/json``.

    Raise :class:`HTTPException` 400, 408, 413 or 415 for the body, :class:`InvalidInput` for its fields, and
    :class:`ClientDisconnect` if the client disconnects.
    """
    content_type = _content_type(request)
    if content_type.value == "application/json":
        return rules.read(_json_object(await _json_body(request)))
    reader = FormReader(content_type, rules.checks, max_upload_bytes=max_upload_bytes)
    if _declared_bytes(request) > max_upload_bytes + MAX_OVERHEAD_BYTES:
        raise too_large(f"the file may have {max_upload_bytes} bytes")
    started, loop, threads = perf_counter(), asyncio.get_running_loop(), service_of(request).hashing
    async for chunk in _chunks(request):
        if len(chunk) < THREAD_BYTES:
            reader.feed(chunk)
        else:
            # ``hashlib`` releases the interpreter lock, so the event loop receives the next piece meanwhile.
            await loop.run_in_executor(threads, reader.feed, chunk)
    form = reader.finish()
    if form.upload is not None:
        metrics.upload_hashed(form.upload.size_bytes, perf_counter() - started)
    return rules.submission(form.values, form.upload, form.faults)


async def read_optional_json(request: Request) -> dict[str, object]:
    """Return the members of a JSON object; none for an empty body. Raise :class:`HTTPException` 400, 408 or 413."""
    body = await _json_body(request)
    return _json_object(body) if body else {}


async def read_json(request: Request, *, max_bytes: int) -> dict[str, object]:
    """Return the members of a large JSON object. Raise :class:`HTTPException` 400, 408, 413 or 415."""
    if _content_type(request).value != "application/json":
        raise HTTPException(415, "Unsupported Media Type: expected application/json")
    return await asyncio.to_thread(_json_object, await _json_body(request, max_bytes))


async def _json_body(request: Request, max_bytes: int = MAX_JSON_BYTES) -> bytes:
    if _declared_bytes(request) > max_bytes:
        raise too_large(f"a JSON body may have {max_bytes} bytes")
    io: SinglePieceIO | None = request.scope.get("single_piece")
    if io is not None and (whole := io.body()) is not None:
        context_of(request).body_read = True
        if len(whole) > max_bytes:
            raise too_large(f"a JSON body may have {max_bytes} bytes")
        return whole
    body = bytearray()
    async for chunk in _chunks(request):
        body += chunk
        if len(body) > max_bytes:
            raise too_large(f"a JSON body may have {max_bytes} bytes")
    return bytes(body)


def _json_object(body: bytes) -> dict[str, object]:
    if is_too_deep(body):
        raise malformed("the JSON is nested too deeply; expected an object of plain values")
    try:
        value = _JSON.decode(body.decode())
    except ValueError as error:
        raise malformed("expected a JSON object in UTF-8, with each name once") from error
    if not isinstance(value, dict):
        raise malformed("expected a JSON object")
    return {name: given for name, given in value.items() if given is not None}


_JSON: Final = json.JSONDecoder(object_pairs_hook=members_once)


async def _chunks(request: Request) -> AsyncIterator[bytes]:
    idle_seconds = service_of(request).settings.request_idle_seconds
    clock = asyncio.get_running_loop().time
    slowest, received_bytes = clock() + idle_seconds, 0
    while True:
        now = clock()
        try:
            async with asyncio.timeout_at(min(now + idle_seconds, slowest + received_bytes / MIN_BYTES_PER_SECOND)):
                message = await request.receive()
        except TimeoutError:
            raise HTTPException(
                408,
                f"Request Timeout: no byte of the body came for {idle_seconds:g} s, "
                f"or fewer than {MIN_BYTES_PER_SECOND} bytes a second",
            ) from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        if body := message.get("body"):
            received_bytes += len(body)
            yield body
        if not message.get("more_body", False):
            context_of(request).body_read = True
            return


def _content_type(request: Request) -> HeaderValue:
    headers = context_of(request).headers
    if headers.get(b"content-type") == _PLAIN_JSON.encode() and b"content-encoding" not in headers:
        return HeaderValue(_PLAIN_JSON, {})
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
    declared = context_of(request).headers.get(b"content-length", b"")
    return int(declared) if declared.isdigit() and len(declared) < 20 else 0
