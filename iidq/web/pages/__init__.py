"""The web pages: plain files of this folder, served under a policy that loads nothing else.

There is no build step. ``*.html`` are templates with a few ``{{names}}``; all other files are served unchanged. The
address of an asset contains a digest of all assets (``/assets/<digest>/shared/style.css``), so that browsers keep it.
"""

import re
from collections.abc import Awaitable, Callable
from functools import cache
from hashlib import blake2b
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iidq import __version__
from iidq.queue.identifiers import find_job_id
from iidq.settings import Settings
from iidq.web.reply.conditional import entity_tag, has_seen
from iidq.web.request_context import context_of

ASSETS_PATH: Final = "/assets/"
PAGE_ROUTE: Final = "page:"
"""Prefix of the names of routes that serve pages; the API's description omits them."""

_POLICY: Final = (
    "default-src 'none'; script-src 'self'{scripts}; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "worker-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
PAGE_POLICY: Final = _POLICY.format(scripts="")
# A web worker has the policy of its own reply; WebAssembly is compiled only there.
_WORKER_POLICY: Final = _POLICY.format(scripts=" 'wasm-unsafe-eval'")
_COMPILES_WASM: Final = frozenset({"verify/hash-worker.js"})

_MEDIA_TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "LICENSE": "text/plain; charset=utf-8",
}
_SLOT = re.compile(r"\{\{(\w+)\}\}")
_ROOT: Final = b"{{root}}"
_FOREVER: Final = "public, max-age=31536000, immutable"


def is_open_page(path: str) -> bool:
    """Return whether ``path`` is a page or asset without secrets, which needs no key."""
    return path == "/" or path.startswith((ASSETS_PATH, "/jobs/"))


def page(name: str, **values: str) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint that serves the template ``name``, with ``values`` in its slots."""
    return _serving(render(name, **values))


def render(name: str, **values: str) -> bytes:
    """Return the HTML of the template ``name`` with escaped ``values``; raise KeyError for a slot without a value.

    ``{{root}}`` is left: it depends on the request.
    """
    root = _ROOT.decode()
    known = {"root": root, "assets": root + ASSETS_PATH + _digest(), "version": __version__, **values}
    text = files(__name__).joinpath(name).read_text(encoding="utf-8")
    return _SLOT.sub(lambda slot: escape(known[slot[1]]), text).encode()


def page_reply(request: Request, body: bytes, status: int = 200) -> Response:
    """Return ``body`` as a page, or 304."""
    body = body.replace(_ROOT, context_of(request).path_prefix.encode())
    tag = entity_tag(body)
    headers = {
        "ETag": tag,
        "Cache-Control": "no-cache",
        "Content-Security-Policy": PAGE_POLICY,
        "Cross-Origin-Opener-Policy": "same-origin",
    }
    if status == 200 and has_seen(request, tag):
        return Response(status_code=304, headers=headers)
    return Response(body, status, media_type="text/html; charset=utf-8", headers=headers)


def routes(settings: Settings) -> list[Route]:
    """Return the routes of the verification page and of all assets."""
    values = _verification_values(settings)
    job_page = render("verify/verify.html", view="job", **values)

    async def job(request: Request) -> Response:
        # The page's script reads the job; text that is no id is no job's.
        possible = find_job_id(request.path_params["job_id"]) is not None
        return page_reply(request, job_page, 200 if possible else 404)

    return [
        Route("/", page("verify/verify.html", view="ask", **values), methods=["GET"], name=f"{PAGE_ROUTE}verify"),
        Route("/jobs/{job_id}", job, methods=["GET"], name=f"{PAGE_ROUTE}job"),
        Route(f"{ASSETS_PATH}{{digest}}/{{name:path}}", _asset, methods=["GET"], name=f"{PAGE_ROUTE}asset"),
    ]


def _verification_values(settings: Settings) -> dict[str, str]:
    chain_id, registry = settings.default_registry or (None, "")
    return {
        "registry": registry,
        "chain_id": str(chain_id or ""),
        "max_upload_bytes": str(settings.max_upload_bytes),
        "key": "required" if settings.api_key and settings.api_key_scope == "all" else "",
    }


def _serving(body: bytes) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        return page_reply(request, body)

    return serve


async def _asset(request: Request) -> Response:
    found = _assets().get(request.path_params["name"])
    if found is None:
        raise HTTPException(404)
    body, media_type, policy = found
    tag = entity_tag(body)
    # During a rollout a page may get an asset of another version, which must not be kept.
    current = request.path_params["digest"] == _digest()
    headers = {
        "ETag": tag,
        "Cache-Control": _FOREVER if current else "no-cache",
        "Content-Security-Policy": policy,
    }
    if has_seen(request, tag):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=media_type, headers=headers)


@cache
def _assets() -> dict[str, tuple[bytes, str, str]]:
    """Return bytes, media type and policy of every asset, by its path in this folder."""
    return {
        name: (file.read_bytes(), media_type, _WORKER_POLICY if name in _COMPILES_WASM else PAGE_POLICY)
        for name, file in _files(files(__name__), "")
        if (media_type := _MEDIA_TYPES.get(name.rpartition(".")[2].rpartition("/")[2]))
    }


def _files(folder: Traversable, prefix: str) -> list[tuple[str, Traversable]]:
    found: list[tuple[str, Traversable]] = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        name = f"{prefix}{entry.name}"
        found += _files(entry, f"{name}/") if entry.is_dir() else [(name, entry)]
    return found


@cache
def _digest() -> str:
    digest = blake2b(digest_size=8)
    for name, (body, _, _) in _assets().items():
        digest.update(f"{name} {len(body)} ".encode() + body)
    return digest.hexdigest()
