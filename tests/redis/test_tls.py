"""``rediss://``: Redis behind TLS, with a certificate for the host in the URL.

The Redis of the tests has no TLS, so a proxy ends TLS, as operators do with stunnel.
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from iidq.redis.redis_connection import open_redis
from iidq.settings import Settings
from tests.eventually import eventually
from tests.redis.conftest import Events, OpenAccelerator
from tests.redis_server import RedisServer

_TLS = Path(__file__).parents[1] / "tls"
_CERTIFICATE = _TLS / "localhost.pem"


@asynccontextmanager
async def behind_tls(server: RedisServer) -> AsyncIterator[int]:
    """Yield a port with TLS in front of ``server``; the certificate is for ``localhost``."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(_CERTIFICATE, _TLS / "localhost.key")

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(65_536):
                target.write(piece)
                await target.drain()
        target.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_reader, to_writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(copy(reader, to_writer), copy(to_reader, writer))

    listener = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    async with listener:
        yield listener.sockets[0].getsockname()[1]


async def test_commands_and_messages_pass_through_tls(accelerate: OpenAccelerator, redis: RedisServer) -> None:
    """Commands and subscriptions work through TLS, with the certificate's authority named in the URL."""
    async with behind_tls(redis) as port:
        url = f"rediss://localhost:{port}/0?ssl_ca_certs={_CERTIFICATE}"
        async with accelerate(redis_url=url) as one, accelerate() as plain:
            heard: list[str] = []
            hearing = asyncio.create_task(one.relay.run({"iidq_jobs": heard.append}, lambda: None))
            await eventually(lambda: one.relay.is_subscribed("iidq_jobs"))
            plain.relay.publish("iidq_jobs", "rest")
            await eventually(lambda: heard == ["rest"])
            assert one.redis is not None
            await one.redis.run(lambda client: client.set("x", "y"))
            assert b"y" in redis.command("GET", "x")
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)


@pytest.mark.parametrize(
    ("host", "query", "event"),
    [
        ("localhost", "", "redis.lost"),
        ("127.0.0.1", f"?ssl_ca_certs={_CERTIFICATE}", "redis.lost"),
        ("127.0.0.1", f"?ssl_ca_certs={_CERTIFICATE}&ssl_check_hostname=false", "redis.up"),
        ("localhost", "?ssl_cert_reqs=none", "redis.up"),
    ],
    ids=["unknown authority", "another host's", "host not looked at", "nothing looked at"],
)
async def test_a_strangers_certificate_is_refused(
    redis: RedisServer, host: str, query: str, event: str, events: Events
) -> None:
    """A certificate of an unknown authority or another host opens the circuit, unless the URL turns the check off."""
    async with behind_tls(redis) as port:
        settings = Settings(_env_file=None, redis_url=f"rediss://{host}:{port}/0{query}", redis_timeout_ms=2000)
        async with open_redis(settings) as connection:
            assert connection is not None
            await eventually(events)
    assert events() == [event]
