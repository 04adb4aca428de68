"""The pages for people, as they are served: plain files of this folder, under a policy that lets nothing else in.

No build step: ``*.html`` are templates with a few ``{{names}}``, everything else is served as it stands. Assets have
an address that changes with their content (``/assets/<digest>/style.css``), so a browser asks for each of them once.
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
"""How the name of a route begins whose reply is for people: the API's description leaves it out."""

_POLICY: Final = (
    "default-src 'none'; script-src 'self'{scripts}; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "worker-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
PAGE_POLICY: Final = _POLICY.format(scripts="")
# A worker lives under the policy of its own reply: WebAssembly is compiled there and nowhere else.
_WORKER_POLICY: Final = _POLICY.format(scripts=" 'wasm-unsafe-eval'")
_COMPILES_WASM: Final = frozenset({"hash-worker.js"})

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
    """Whether a path is that of a page or file that holds nothing secret: no key is asked for there."""
    return path == "/" or path.startswith((ASSETS_PATH, "/jobs/"))


def page(name: str, **values: str) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint that serves the template ``name``; ``values`` fill its slots, escaped, besides ``assets``."""
    return _serving(render(name, **values))


def render(name: str, **values: str) -> bytes:
    """The template's HTML but for the exchange's ``{{root}}``; raises KeyError for a slot that has no value."""
    root = _ROOT.decode()
    known = {"root": root, "assets": root + ASSETS_PATH + _digest(), "version": __version__, **values}
    text = files(__name__).joinpath(name).read_text(encoding="utf-8")
    return _SLOT.sub(lambda slot: escape(known[slot[1]]), text).encode()


def page_reply(request: Request, body: bytes, status: int = 200) -> Response:
    """``body`` as a page, or 304."""
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
    """The verification page under these settings, and the assets of all pages."""
    values = _verification_values(settings)
    of_a_job = render("verify.html", view="job", **values)

    async def job(request: Request) -> Response:
        # The script asks for the job; what cannot be one's id needs no asking.
        found = find_job_id(request.path_params["job_id"]) is not None
        return page_reply(request, of_a_job, 200 if found else 404)

    return [
        Route("/", page("verify.html", view="ask", **values), methods=["GET"], name=f"{PAGE_ROUTE}verify"),
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
    # While a new version rolls out, a page of one may ask a process of the other.
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
    """Bytes, media type and policy of every asset, by its path in this folder."""
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
