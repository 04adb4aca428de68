"""``REDIS_URL``: one server, a Sentinel's service, or a Cluster. Pure.

``redis://user:password@host:6379/0`` is a server, ``unix:///path/redis.sock?db=0`` a server on the same machine,
``redis+sentinel://host1,host2:26379/name/0`` the master that Sentinels call ``name``, and
``redis+cluster://host1,host2:6379`` a Cluster by some of its nodes. ``rediss`` instead of ``redis`` adds TLS.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

EXPECTED: Final = (
    "redis://, rediss:// or unix:// (one server), redis+sentinel://HOST,HOST/SERVICE, or redis+cluster://HOST,HOST"
)
_REDIS_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_OPTIONS: Final = frozenset(
    {"db", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_cert_reqs", "ssl_check_hostname"}
    | {"sentinel_username", "sentinel_password"}
)
_CERTIFICATE_CHECKS: Final = ("none", "optional", "required")


class Kind(StrEnum):
    """The kind of installation."""

    ONE_SERVER = "one server"
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """The address of Redis and the credentials."""

    kind: Kind
    """One server, Sentinels or a Cluster."""
    hosts: tuple[tuple[str, int], ...] = ()
    """Host and port of servers, Sentinels or nodes; empty with ``path``."""
    path: str | None = None
    """Unix socket of one server."""
    service: str = ""
    """Name of the master for Sentinels; else empty."""
    database: int = 0
    """Number of the database."""
    username: str | None = None
    """User at Redis; None: the default user."""
    password: str | None = None
    """Password at Redis; None: no AUTH."""
    tls: bool = False
    """Whether connections use TLS."""
    options: tuple[tuple[str, str], ...] = ()
    """redis-py's TLS settings, sorted pairs of the URL's query."""
    sentinel_username: str | None = None
    """User at the Sentinels."""
    sentinel_password: str | None = None
    """Password at the Sentinels."""

    @property
    def place(self) -> str:
        """The address without credentials, for people."""
        return self.path or ", ".join(f"{host}:{port}" for host, port in self.hosts)


def parse_redis_url(url: str) -> RedisAddress:
    """Read ``REDIS_URL``; raise ValueError with the expected form."""
    scheme, separator, rest = url.partition("://")
    tls = scheme.startswith("rediss")
    kinds = {"redis": Kind.ONE_SERVER, "redis+sentinel": Kind.SENTINEL, "redis+cluster": Kind.CLUSTER}
    kind = Kind.ONE_SERVER if scheme == "unix" else kinds.get(scheme.replace("rediss", "redis", 1))
    if not separator or kind is None:
        raise ValueError(EXPECTED)
    # urlsplit reads one host; several hosts are between the last @ and the first / or ?.
    try:
        parts = urlsplit(f"redis://{rest}")
    except ValueError:
        # The message of urlsplit would quote the URL.
        raise ValueError(f"{EXPECTED}; its host is malformed") from None
    if "@" in parts.path + parts.query + parts.fragment and scheme != "unix":
        raise ValueError("a reserved character (% / ? # @ :) of its user or password percent-encoded")
    options = dict(parse_qsl(parts.query))
    if options.keys() - _OPTIONS:
        raise ValueError(f"no other option after the ? than {', '.join(sorted(_OPTIONS))}")
    if options.get("ssl_cert_reqs", "none") not in _CERTIFICATE_CHECKS:
        raise ValueError(f"{', '.join(_CERTIFICATE_CHECKS)} as ssl_cert_reqs")
    credentials, _, places = parts.netloc.rpartition("@")
    username, _, password = credentials.partition(":")
    segments = [unquote(segment) for segment in parts.path.split("/") if segment]
    named = RedisAddress(
        kind=kind,
        username=unquote(username) or None,
        password=unquote(password) or None,
        tls=tls,
        sentinel_username=options.pop("sentinel_username", None),
        sentinel_password=options.pop("sentinel_password", None),
    )
    database = options.pop("db", None)
    if scheme == "unix":
        return _with(named, path=unquote(parts.path), database=_database(database))
    default_port = _SENTINEL_PORT if kind is Kind.SENTINEL else _REDIS_PORT
    hosts = tuple(_host(place, default_port) for place in (places or "localhost").split(","))
    if kind is Kind.ONE_SERVER and len(hosts) > 1:
        raise ValueError("one host; for several: redis+sentinel:// or redis+cluster://")
    service = ""
    if kind is Kind.SENTINEL:
        if not segments:
            raise ValueError("the service's name after the hosts: redis+sentinel://HOST,HOST/SERVICE")
        service = segments.pop(0)
    if len(segments) > 1:
        raise ValueError(EXPECTED)
    number = _database(segments[0] if segments else database)
    if kind is Kind.CLUSTER and number:
        raise ValueError("database 0: a Cluster has no other")
    return _with(named, hosts=hosts, service=service, database=number, options=tuple(sorted(options.items())))


def _with(address: RedisAddress, **fields: object) -> RedisAddress:
    return replace(address, **fields)  # type: ignore[arg-type]


def _database(text: str | None) -> int:
    if text is None:
        return 0
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise ValueError("a database's number after the host")
    return int(text)


def _host(place: str, default_port: int) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{place}")
        port = parts.port
    except ValueError:
        raise ValueError("a port from 1 to 65535") from None
    if not parts.hostname:
        raise ValueError(EXPECTED)
    return parts.hostname, port or default_port
