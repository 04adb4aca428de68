"""A small web server and IPFS gateway for manifests on 127.0.0.1, in memory.

The gateway follows the trustless gateway specification: the plain body, or with ``?format=raw`` (or
``Accept: application/vnd.ipld.raw``) the one block that the CID names.
"""

import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from urllib.parse import quote

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from iidq.embedded.endpoint import serve_locally
from iidq.provenance.ipfs.cid import dag_pb_cid, raw_cid
from iidq.provenance.ipfs.unixfs import wrap_file

MAX_BLOCK_BYTES = 256 * 1024
"""Longer bodies would need several blocks, as in kubo's default chunking."""
MAX_BLOCKS = 10_000
"""Most manifests that a server takes by POST; all are in memory."""

_RAW_BLOCK = "application/vnd.ipld.raw"


@dataclass
class ManifestServer:
    """Manifests to fetch from ``base_url``."""

    base_url: str = ""
    _bodies: dict[str, bytes] = field(default_factory=dict)
    _blocks: dict[str, tuple[bytes, bytes]] = field(default_factory=dict)

    def publish(self, name: str, body: bytes) -> str:
        """Serve ``body`` under ``name``, replacing an earlier body; return the URL."""
        self._bodies[name] = body
        return f"{self.base_url}/manifests/{quote(name)}"

    def publish_ipfs(self, body: bytes, *, raw_leaf: bool = False) -> str:
        """Serve ``body`` from the gateway; return the ``ipfs://`` URI.

        The URI has a CIDv0 of one UnixFS dag-pb block, or with ``raw_leaf`` a CIDv1 of the plain bytes. Raises
        ValueError over 256 KiB.
        """
        if len(body) > MAX_BLOCK_BYTES:
            raise ValueError(f"body has {len(body)} bytes; expected at most {MAX_BLOCK_BYTES}, one block")
        block = body if raw_leaf else wrap_file(body)
        cid = raw_cid(block) if raw_leaf else dag_pb_cid(block)
        self._blocks[cid] = (body, block)
        return f"ipfs://{cid}"

    def app(self) -> Starlette:
        """Return the web application."""
        return Starlette(
            routes=[
                Route("/manifests/{name:path}", self._manifest, methods=["GET"]),
                Route("/ipfs/{cid}", self._ipfs, methods=["GET"]),
                Route("/ipfs", self._take, methods=["POST"]),
            ]
        )

    async def _manifest(self, request: Request) -> Response:
        body = self._bodies.get(request.path_params["name"])
        if body is None:
            return PlainTextResponse("no such manifest\n", 404)
        return Response(body, media_type=_media_type(body))

    async def _ipfs(self, request: Request) -> Response:
        cid = request.path_params["cid"]
        found = self._blocks.get(cid)
        if found is None:
            return PlainTextResponse("no such block\n", 404)
        body, block = found
        headers = {"X-Ipfs-Path": f"/ipfs/{cid}", "Cache-Control": "public, max-age=29030400, immutable"}
        if request.query_params.get("format") == "raw" or _RAW_BLOCK in request.headers.get("accept", ""):
            return Response(block, media_type=_RAW_BLOCK, headers={**headers, "Etag": f'"{cid}.raw"'})
        return Response(body, media_type=_media_type(body), headers={**headers, "Etag": f'"{cid}"'})

    async def _take(self, request: Request) -> Response:
        """POST /ipfs, for `iidq register`: serve the body; reply 201 with the CID in ``Location``."""
        # A page in a browser cannot send this type without a preflight request, which gets no permission.
        if request.headers.get("content-type") != "application/json":
            return PlainTextResponse("expected application/json\n", 415)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_BLOCK_BYTES:
                return PlainTextResponse(f"expected at most {MAX_BLOCK_BYTES} bytes\n", 413)
        if len(self._blocks) >= MAX_BLOCKS:
            return PlainTextResponse(f"there are {MAX_BLOCKS} manifests already\n", 507)
        cid = self.publish_ipfs(bytes(body)).removeprefix("ipfs://")
        return PlainTextResponse(f"{cid}\n", 201, headers={"Location": f"/ipfs/{cid}"})


@contextlib.asynccontextmanager
async def serve_manifests(*, port: int = 0) -> AsyncIterator[ManifestServer]:
    """Run a server; ``base_url`` is a value for IPFS_GATEWAYS. Port 0 takes any free one."""
    server = ManifestServer()
    async with serve_locally(server.app(), port=port) as url:
        server.base_url = url
        yield server


def _media_type(body: bytes) -> str:
    try:
        json.loads(body)
    except ValueError:
        return "application/octet-stream"
    return "application/json"
