"""The path under which clients reach the service behind a reverse proxy. Pure.

``ROOT_PATH`` names it. ``X-Forwarded-Prefix`` of a trusted proxy takes its place: several values are joined in their
order, the outermost proxy's first, as Traefik appends them. With one value that is no such path, the header is ignored.

Proxies that keep the prefix send ``/iidq/api/…``, others ``/api/…``; both are served. Only ``ROOT_PATH`` is taken off a
request's path: a header that a proxy passes on unseen would let clients avoid the paths that the proxy refuses.
"""

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from functools import lru_cache
from typing import Any, Final

from iidq.setting_values.checks import LONGEST_PREFIX, parse_prefix
from iidq.web.guard.client_address import ClientAddresses

_HEADER: Final = b"x-forwarded-prefix"


class PathPrefixes:
    """Finds each request's prefix; ``own_paths`` are those of the routes."""

    def __init__(self, root_path: str, trusted_proxies: Sequence[str], own_paths: Iterable[str]) -> None:
        self._root_path = root_path
        self._addresses = ClientAddresses(trusted_proxies)
        self._own_segments = frozenset(path.split("/")[1] for path in own_paths)

    def take(self, scope: MutableMapping[str, Any], headers: Mapping[bytes, bytes]) -> str:
        """Take the prefix off the request's path; return the one that the reply's URLs begin with."""
        prefix = self._root_path
        if scope.get("root_path"):
            # Of an ASGI server's own option, such as uvicorn's --root-path. The router must not take it off again.
            prefix = _known(scope["root_path"]) or prefix
            scope["root_path"] = ""
        if prefix:
            scope["path"] = self._without(prefix, scope["path"])
        if _HEADER in headers and self._addresses.trusts_peer(scope):
            fields = b",".join([value for name, value in scope["headers"] if name == _HEADER])
            joined = _joined(fields) if len(fields) <= LONGEST_PREFIX else None
            return prefix if joined is None else joined
        return prefix

    def _without(self, prefix: str, path: str) -> str:
        if path == prefix:
            return "/"
        rest = path.removeprefix(prefix)
        # Under ROOT_PATH=/api the path /api/docs has no prefix, and /api/api/docs has one.
        return rest if rest[:1] == "/" and rest.split("/", 2)[1] in self._own_segments else path


def _known(text: str) -> str:
    try:
        return parse_prefix(text)
    except ValueError:
        return ""


@lru_cache(64)
def _joined(fields: bytes) -> str | None:
    values = [value for field in fields.decode("latin-1").split(",") if (value := field.strip(" \t"))]
    try:
        return parse_prefix("".join([parse_prefix(value) for value in values])) if values else None
    except ValueError:
        return None
