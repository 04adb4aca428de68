"""A reverse proxy with full buffering: the client receives a reply, and so all events, only at its end."""

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iidq.embedded.endpoint import serve_locally

_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "host", "date", "server"}


@dataclass
class BufferingProxy:
    """A proxy in front of ``target``."""

    target: str
    """The base URL of the server behind the proxy."""
    url: str = ""
    """The URL of the proxy. Empty before the start."""
    asked: list[str] = field(default_factory=list)
    """The paths of all received requests, in order."""


@contextlib.asynccontextmanager
async def buffering_proxy(target: str) -> AsyncIterator[BufferingProxy]:
    """Start a proxy and stop it at the end."""
    proxy = BufferingProxy(target)
    async with httpx.AsyncClient(base_url=target, timeout=60, trust_env=False) as client:

        async def pass_on(request: Request) -> Response:
            proxy.asked.append(request.url.path)
            reply = await client.request(
                request.method,
                f"{request.url.path}?{request.url.query}",
                headers=[(name, value) for name, value in request.headers.items() if name not in _HOP_BY_HOP],
                content=await request.body(),
            )
            passed = Response(reply.content, reply.status_code)
            for name, value in reply.headers.items():
                if name not in _HOP_BY_HOP | {"content-encoding"}:
                    passed.headers[name] = value
            return passed

        app = Starlette(routes=[Route("/{path:path}", pass_on, methods=["GET", "POST"])])
        async with serve_locally(app) as proxy.url:
            yield proxy
