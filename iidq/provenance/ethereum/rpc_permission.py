"""Which endpoints a caller may choose: those that the operator named; and which of them a stored job means."""

from functools import lru_cache
from hashlib import scrypt

from iidq.errors import FetchRefused, RpcFault
from iidq.observability.redaction import redact_endpoint
from iidq.settings import Settings

# What a restart of all workers may take.
_RESTART_SECONDS = 30.0


def check_rpc_url(settings: Settings, url: str) -> str:
    """Return the operator's URL that ``url`` means; raise :class:`FetchRefused` if it is none of them, or several.

    Allowed are the configured endpoints and ``RPC_ALLOWED_URLS``, with or without the final slash. A URL without its
    credentials, as replies show it, is taken where only one endpoint is shown so.
    """
    wanted = url.rstrip("/")
    allowed = _allowed(settings)
    if wanted in allowed:
        return allowed[wanted]
    meant = [known for plain, known in allowed.items() if wanted == redact_endpoint(plain)]
    if len(meant) > 1:
        raise FetchRefused(
            "rpcUrl is how this service shows several of its endpoints; expected one of them with its credentials",
            code="fetch.refused.rpc_url",
        )
    if not meant:
        raise FetchRefused("rpcUrl is none of the endpoints that this service may use", code="fetch.refused.rpc_url")
    return meant[0]


def find_endpoint(settings: Settings, rpc_url: str, endpoint_id: str | None) -> str:
    """Return the operator's URL that a stored job means: that of ``endpoint_id``, never another that looks like it.

    Without an id (rows of plain SQL) as :func:`check_rpc_url`. Raises :class:`FetchRefused`, :class:`RpcFault`.
    """
    if endpoint_id is None:
        return check_rpc_url(settings, rpc_url)
    shown = redact_endpoint(rpc_url.rstrip("/"))
    # Those that are shown like it come first: each digest takes some milliseconds.
    for plain, known in sorted(_allowed(settings).items(), key=lambda entry: redact_endpoint(entry[0]) != shown):
        if identify_endpoint(plain) == endpoint_id:
            return known
    # During a restart with other RPC variables another worker may have it.
    raise RpcFault(
        "the endpoint that rpcUrl named when the job was asked for is not configured here; "
        "give the API and all workers the same RPC variables",
        code="rpc.endpoint_not_configured",
        retry_after_seconds=_RESTART_SECONDS,
    )


@lru_cache(maxsize=1024)
def identify_endpoint(url: str) -> str:
    """Return a digest that tells endpoints apart, credentials included, in every process alike.

    By scrypt: unlike a plain hash, a row that is seen by others is no means to try short credentials.
    """
    plain = url.rstrip("/")
    salt = f"iidq rpcUrl {redact_endpoint(plain)}".encode()
    return scrypt(plain.encode(), salt=salt, n=1 << 12, r=8, p=1, dklen=16).hex()


def _allowed(settings: Settings) -> dict[str, str]:
    """The URLs by their form without the final slash; of two spellings the first."""
    configured = [settings.rpc_url] if settings.rpc_url else []
    for urls in settings.rpc_urls.values():
        configured += urls
    allowed: dict[str, str] = {}
    for url in (*configured, *settings.rpc_allowed_urls):
        allowed.setdefault(url.rstrip("/"), url)
    return allowed
