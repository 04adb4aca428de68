"""HTTP for JSON-RPC endpoints that the operator configures: bounded POSTs, faults without the endpoint's own words."""

import asyncio
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import httpx

from iidq.errors import RpcFault
from iidq.guarded_http.fetch import retry_after_seconds
from iidq.provenance.ethereum.jsonrpc import BatchRefused

_HEADERS: Final = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
# Statuses that depend on time or on credentials. Any other 4xx may be about the batch's size.
_NOT_ABOUT_THE_BATCH: Final = {401, 402, 404, 408, 429}


class BodyTooLong(Exception):
    """The answer's body exceeds its bound; never leaves the client."""


class PostAnswer(NamedTuple):
    """The answer to a POST."""

    body: bytes
    """JSON-RPC, or any text where a caller accepts it."""
    retry_after_seconds: float | None
    """The ``Retry-After`` header in seconds; None without it."""


def open_http(
    *,
    connect_seconds: float = 5,
    read_seconds: float = 10,
    tls: bool = True,
    transport: httpx.AsyncBaseTransport | None = None,
) -> httpx.AsyncClient:
    """Return a client for operators' endpoints: kept-alive connections, no redirects, no proxy variables."""
    return httpx.AsyncClient(
        trust_env=False,
        verify=tls,
        transport=transport,
        follow_redirects=False,
        timeout=httpx.Timeout(read_seconds, connect=connect_seconds, pool=connect_seconds),
        limits=httpx.Limits(max_connections=64, max_keepalive_connections=32, keepalive_expiry=30),
    )


def shown_origin(url: str) -> str:
    """Return scheme, host and port: the part of an endpoint's URL without keys."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}" + (f":{parts.port}" if parts.port else "")


async def post_json(
    http: httpx.AsyncClient, url: str, body: bytes, *, deadline_seconds: float, max_bytes: int, batched: bool = False
) -> PostAnswer:
    """Post a JSON-RPC body and return the answer's.

    Raises :class:`RpcFault` without a JSON-RPC answer in time, :class:`BodyTooLong` for a body over ``max_bytes``, and
    :class:`BatchRefused` for a status that may be about a ``batched`` body's size.
    """
    try:
        async with (
            asyncio.timeout(deadline_seconds),
            http.stream("POST", url, content=body, headers=_HEADERS) as response,
        ):
            if response.headers.get("content-encoding", "identity").lower() != "identity":
                raise RpcFault(
                    "the RPC endpoint sent a compressed answer; expected identity encoding", code="rpc.nonsense"
                )
            answer = await _read(response, max_bytes)
    except (TimeoutError, httpx.TimeoutException):
        raise RpcFault("the RPC endpoint did not answer in time", code="rpc.timeout") from None
    except (httpx.HTTPError, httpx.InvalidURL):
        raise RpcFault("the RPC endpoint could not be reached", code="rpc.unreachable") from None
    retry_after = retry_after_seconds(response.headers)
    if response.status_code != 200:
        _raise_for_status(response.status_code, answer, retry_after, batched=batched)
    return PostAnswer(answer, retry_after)


async def _read(response: httpx.Response, max_bytes: int) -> bytes:
    chunks, received = [], 0
    async for chunk in response.aiter_bytes():
        received += len(chunk)
        if received > max_bytes:
            if response.status_code == 200:
                raise BodyTooLong
            break  # the page of an error: its status is enough
        chunks.append(chunk)
    return b"".join(chunks)


def _raise_for_status(status: int, answer: bytes, retry_after: float | None, *, batched: bool) -> None:
    """Raise unless the body is JSON-RPC: some endpoints send the errors of calls with HTTP 400."""
    if status == 429:
        raise RpcFault(
            "the RPC endpoint refuses calls for now (HTTP 429)", code="rpc.limited", retry_after_seconds=retry_after
        )
    if batched and 400 <= status < 500 and status not in _NOT_ABOUT_THE_BATCH:
        raise BatchRefused
    if not (400 <= status < 500 and answer.lstrip()[:1] in (b"{", b"[")):
        raise RpcFault(
            f"the RPC endpoint answered with HTTP {status}", code="rpc.http_status", retry_after_seconds=retry_after
        )
