"""Which endpoints a caller may choose: those that the operator named."""

from iidq.errors import FetchRefused
from iidq.redaction import redact_url
from iidq.settings import Settings


def check_rpc_url(settings: Settings, url: str) -> str:
    """Return the operator's URL that ``url`` means; raise :class:`FetchRefused` if it is none of them.

    Allowed are the configured endpoints and ``RPC_ALLOWED_URLS``, with or without the final slash. A stored job's
    URL has its credentials redacted, so that spelling is recognised too.
    """
    configured = [settings.rpc_url] if settings.rpc_url else []
    for urls in settings.rpc_urls.values():
        configured += urls
    wanted = url.rstrip("/")
    for allowed in (*configured, *settings.rpc_allowed_urls):
        if wanted in (allowed.rstrip("/"), redact_url(allowed).rstrip("/")):
            return allowed
    raise FetchRefused("rpcUrl is none of the endpoints that this service may use", code="fetch.refused.rpc_url")
