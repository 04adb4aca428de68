"""The API's own description: ``/api/docs.json``, and ``/api/docs`` as a page that needs neither network nor script."""

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from iidq.settings import Settings
from iidq.web.entity_tags import entity_tag, has_seen
from iidq.web.openapi.page import STYLE_URL, render_page
from iidq.web.wire import JsonReply

DOCUMENT_URL: Final = "/api/docs.json"
_PAGE_POLICY: Final = (
    "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def routes(settings: Settings) -> list[Route]:
    """The document under these settings; each form of it is made once, when it is first asked for."""

    @cache
    def document() -> bytes:
        return bytes(JsonReply(_document(settings)).body)

    @cache
    def page() -> bytes:
        return render_page(_document(settings)).encode()

    @cache
    def style() -> bytes:
        return files("iidq.web.pages").joinpath("docs.css").read_bytes()

    return [
        Route(DOCUMENT_URL, _serving(document, "application/json"), methods=["GET"], name="document"),
        Route("/api/docs", _serving(page, "text/html; charset=utf-8"), methods=["GET"], name="docs"),
        Route(STYLE_URL, _serving(style, "text/css; charset=utf-8"), methods=["GET"], name="docs_style"),
    ]


def _document(settings: Settings) -> dict[str, object]:
    # Making the schemas takes a while, and most processes are never asked.
    from iidq.web.openapi.document import openapi_document

    return openapi_document(settings)


def _serving(content: Callable[[], bytes], media_type: str) -> Callable[[Request], Response]:
    # A plain function, so that Starlette runs it in a thread: the first request makes the document.
    def serve(request: Request) -> Response:
        body = content()
        tag = entity_tag(body)
        headers = {"ETag": tag, "Cache-Control": "no-cache", "Content-Security-Policy": _PAGE_POLICY}
        if has_seen(request, tag):
            return Response(status_code=304, headers=headers)
        return Response(body, media_type=media_type, headers=headers)

    return serve
