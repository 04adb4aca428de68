"""A manifest server whose answers can be kept back, so that a job stands still in the middle."""

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
    """Publish here; inside ``held(name)`` nobody gets that manifest."""

    base_url: str = ""
    _bodies: dict[str, bytes] = field(default_factory=dict)
    _gates: dict[str, asyncio.Event] = field(default_factory=dict)

    def publish(self, name: str, body: bytes) -> str:
        """Serve ``body``; return its URL."""
        self._bodies[name] = body
        return f"{self.base_url}/{name}"

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Keep answers back until the block ends."""
        gate = self._gates[name] = asyncio.Event()
        try:
            yield
        finally:
            gate.set()

    async def serve(self, request: Request) -> Response:
        """One manifest."""
        name = request.path_params["name"]
        if name in self._gates:
            await self._gates[name].wait()
        body = self._bodies.get(name)
        return PlainTextResponse("none\n", 404) if body is None else Response(body, media_type="application/json")


@contextlib.asynccontextmanager
async def serve_gated_manifests() -> AsyncIterator[GatedManifests]:
    """A running server."""
    manifests = GatedManifests()
    app = Starlette(routes=[Route("/{name:path}", manifests.serve)])
    async with serve_locally(app) as url:
        manifests.base_url = url
        yield manifests
