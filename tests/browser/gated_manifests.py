"""Serve manifests with delayed replies, so that a job pauses in the middle."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from iidq.embedded.endpoint import serve_locally


@dataclass
class GatedManifests:
    """A manifest server. Inside ``held(name)`` the server sends no reply for the manifest ``name``."""

    base_url: str = ""
    """The URL of the server, without a trailing slash. Empty before the start."""
    _bodies: dict[str, bytes] = field(default_factory=dict)
    """The manifests by name."""
    _gates: dict[str, asyncio.Event] = field(default_factory=dict)
    """The held names. A request waits until the event is set."""

    def publish(self, name: str, body: bytes) -> str:
        """Serve ``body``; return its URL."""
        self._bodies[name] = body
        return f"{self.base_url}/{name}"

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Hold replies for ``name`` until the block ends."""
        gate = self._gates[name] = asyncio.Event()
        try:
            yield
        finally:
            gate.set()

    async def serve(self, request: Request) -> Response:
        """Reply with the named manifest, or 404."""
        name = request.path_params["name"]
        if name in self._gates:
            await self._gates[name].wait()
        body = self._bodies.get(name)
        return PlainTextResponse("none\n", 404) if body is None else Response(body, media_type="application/json")


@contextlib.asynccontextmanager
async def serve_gated_manifests() -> AsyncIterator[GatedManifests]:
    """Start the server and stop it at the end."""
    manifests = GatedManifests()
    app = Starlette(routes=[Route("/{name:path}", manifests.serve)])
    async with serve_locally(app) as url:
        manifests.base_url = url
        yield manifests
