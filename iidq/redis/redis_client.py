"""Clients of redis-py for an address: no retries, a bounded pool, RESP 2, which every server has."""

import contextlib
from typing import Any, Final

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff

from iidq.setting_values.redis_url import Kind, RedisAddress

CONNECTIONS: Final = 16
_CLIENT_NAME: Final = "iidq"


class RedisClients:
    """The clients of one process; nothing connects before the first command."""

    def __init__(self, address: RedisAddress, *, connect_seconds: float, answer_seconds: float) -> None:
        self._address = address
        self._common: dict[str, Any] = {
            "socket_connect_timeout": connect_seconds,
            "socket_timeout": answer_seconds,
            "username": address.username,
            "password": address.password,
            "protocol": 2,
            "client_name": _CLIENT_NAME,
        }
        self._tls: dict[str, Any] = {}
        if address.tls:
            self._tls = {**dict(address.options)}
            if "ssl_check_hostname" in self._tls:
                self._tls["ssl_check_hostname"] = self._tls["ssl_check_hostname"].lower() in ("1", "true", "yes", "on")
            elif self._tls.get("ssl_cert_reqs") == "none":
                self._tls["ssl_check_hostname"] = False
        self.commands = self._open()
        """The client for commands."""

    def _open(self) -> Any:
        address = self._address
        match address.kind:
            case Kind.CLUSTER:
                return RedisCluster(
                    startup_nodes=[ClusterNode(host, port) for host, port in address.hosts],
                    require_full_coverage=False,
                    max_connections=CONNECTIONS,
                    retry=Retry(NoBackoff(), 1),
                    ssl=address.tls,
                    **self._tls,
                    **self._common,
                )
            case Kind.SENTINEL:
                asked = {
                    name: value for name, value in self._common.items() if name not in ("username", "password")
                } | {"username": address.sentinel_username, "password": address.sentinel_password}
                retry = Retry(NoBackoff(), 0)
                sentinel = Sentinel(  # type: ignore[no-untyped-call]
                    address.hosts,
                    sentinel_kwargs={**asked, "retry": retry, "ssl": address.tls, **self._tls},
                    **self._common,
                    retry=retry,
                    db=address.database,
                    ssl=address.tls,
                    **self._tls,
                )
                self._sentinels = sentinel.sentinels
                return sentinel.master_for(address.service, max_connections=CONNECTIONS)
        return Redis.from_pool(self._pool_of_one_server(CONNECTIONS))

    def _pool_of_one_server(self, connections: int, place: tuple[str, int] | None = None) -> ConnectionPool:
        address = self._address
        common = {**self._common, "retry": Retry(NoBackoff(), 0), "db": address.database}
        if address.path is not None:
            return ConnectionPool(
                connection_class=UnixDomainSocketConnection, path=address.path, max_connections=connections, **common
            )
        host, port = place or address.hosts[0]
        kind: Any = SSLConnection if address.tls else Connection
        return ConnectionPool(
            connection_class=kind, host=host, port=port, max_connections=connections, **common, **self._tls
        )

    async def subscriber(self) -> Any:
        """Return a client with a connection for subscriptions, to be closed by the caller. Raises ``RedisError``."""
        match self._address.kind:
            case Kind.CLUSTER:
                # Every node of a Cluster forwards the messages of every other node.
                await self.commands.initialize()
                node = self.commands.get_random_node()
                return Redis.from_pool(self._pool_of_one_server(1, (node.host, node.port)))
            case Kind.SENTINEL:
                pool = self.commands.connection_pool
                place = await pool.get_master_address()
                return Redis.from_pool(self._pool_of_one_server(1, place))
        return Redis.from_pool(self._pool_of_one_server(1))

    async def drop_connections(self) -> None:
        """Close idle connections: those to a restarted server are dead."""
        if self._address.kind is Kind.CLUSTER:
            await self.commands.aclose()
        else:
            await self.commands.connection_pool.disconnect(inuse_connections=False)

    async def aclose(self) -> None:
        """Close everything."""
        with contextlib.suppress(Exception):
            whole = {} if self._address.kind is Kind.CLUSTER else {"close_connection_pool": True}
            await self.commands.aclose(**whole)
        for sentinel in getattr(self, "_sentinels", ()):
            with contextlib.suppress(Exception):
                await sentinel.aclose()
