"""The API's description: ``/api/docs.json``, and ``/api/docs`` as a page without network access and scripts.

With ``API_KEY_SCOPE=all`` it needs the key, or the session of a signed-in browser. Other browsers receive a sign-in
page instead of JSON.
"""

from collections.abc import Callable
from functools import cache, lru_cache
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iidq.settings import Settings
from iidq.web.guard.access import unauthorized
from iidq.web.openapi.page import STYLE_URL, render_page
from iidq.web.operations.operations_access import OperationsAccess
from iidq.web.pages import page_reply, render
from iidq.web.reply.conditional import entity_tag, has_seen
from iidq.web.reply.wire import JsonReply
from iidq.web.request_context import context_of

PAGE_URL: Final = "/api/docs"
DOCUMENT_URL: Final = "/api/docs.json"
_PATHS: Final = frozenset({PAGE_URL, DOCUMENT_URL, STYLE_URL})
_PREFIXES_KEPT: Final = 4
_PAGE_POLICY: Final = (
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def is_docs_path(path: str) -> bool:
    """Return whether a path belongs to the description, which checks the key by itself."""
    return path in _PATHS


def routes(settings: Settings) -> list[Route]:
    """Return the routes of the document; each form of it is made on first use, once for each path prefix."""
    access = OperationsAccess(settings) if settings.api_key_scope == "all" else None
    key_page = render("docs/docs-key.html")

    @cache
    def document() -> dict[str, object]:
        return _document(settings)

    @lru_cache(_PREFIXES_KEPT)
    def as_json(prefix: str) -> bytes:
        return bytes(JsonReply({**document(), "servers": [{"url": prefix or "/"}]}).body)

    @lru_cache(_PREFIXES_KEPT)
    def page(prefix: str) -> bytes:
        return render_page(document(), prefix).encode()

    @lru_cache(1)
    def style(_prefix: str) -> bytes:
        return files("iidq.web.pages").joinpath("docs/docs.css").read_bytes()

    def serving(content: Callable[[str], bytes], media_type: str) -> Callable[[Request], Response]:
        # A plain function, because Starlette runs it in a thread: the first request makes the document.
        def serve(request: Request) -> Response:
            prefix = context_of(request).path_prefix
            if access is None:
                return _reply(request, content(prefix), media_type)
            if context_of(request).may_operate or access.session(request):
                reply = _reply(request, content(prefix), media_type)
            elif "text/html" in request.headers.get("accept", ""):
                reply = page_reply(request, key_page, 401)
                reply.headers["WWW-Authenticate"] = "Bearer"
            else:
                reply = unauthorized()
            reply.headers["Vary"] = "Accept, Authorization, Cookie, X-API-Key"
            reply.headers["Cache-Control"] = "no-cache, private"
            return reply

        return serve

    return [
        Route(DOCUMENT_URL, serving(as_json, "application/json"), methods=["GET"], name="document"),
        Route(PAGE_URL, serving(page, "text/html; charset=utf-8"), methods=["GET"], name="docs"),
        Route(STYLE_URL, serving(style, "text/css; charset=utf-8"), methods=["GET"], name="docs_style"),
    ]


def _document(settings: Settings) -> dict[str, object]:
    # Imported late: making the schemas is slow, and few processes serve the document.
    from iidq.web.openapi.document import openapi_document

    return openapi_document(settings)


def _reply(request: Request, body: bytes, media_type: str) -> Response:
    tag = entity_tag(body)
    headers = {"ETag": tag, "Cache-Control": "no-cache", "Content-Security-Policy": _PAGE_POLICY}
    if has_seen(request, tag):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=media_type, headers=headers)
