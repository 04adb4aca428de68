"""Trust in servers' certificates, by the options of libpq, node-postgres and Prisma."""

import asyncio
import contextlib
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from iidq.database.connections import connect
from iidq.errors import DatabaseUnavailable
from iidq.settings import load_settings

_TLS = Path(__file__).parents[2] / "tls"
_CERTIFICATE = _TLS / "localhost.pem"
_ANOTHER = _TLS / "manifest.test.pem"


@pytest.fixture
def postgres_kind() -> str:
    """Tests of the file do not depend on the version."""
    return "embedded"


@pytest.fixture
async def tls_url(database_url: str) -> AsyncIterator[str]:
    """URL of the test's database with TLS, under a self-signed certificate for ``localhost``."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(_CERTIFICATE, _TLS / "localhost.key")
    place = conninfo_to_dict(database_url)

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(65_536):
                target.write(piece)
                await target.drain()
        target.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # SSLRequest (PostgreSQL manual, "Message Formats"), and the consent.
        await reader.readexactly(8)
        writer.write(b"S")
        try:
            await writer.start_tls(context)
        except (OSError, ssl.SSLError):
            return
        to_reader, to_writer = await asyncio.open_unix_connection(f"{place['host']}/.s.PGSQL.5432")
        await asyncio.gather(copy(reader, to_writer), copy(to_reader, writer))

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with listener:
        port = listener.sockets[0].getsockname()[1]
        yield f"postgresql://{place['user']}@localhost:{port}/{place['dbname']}"


@pytest.mark.parametrize(
    ("query", "connects"),
    [
        # libpq finds the root certificate in the home folder, and it is of another authority.
        ("sslmode=require", False),
        ("sslmode=no-verify", True),
        ("ssl=no-verify", True),
        (f"sslmode=no-verify&sslrootcert={_ANOTHER}", True),
        ("sslmode=require&sslaccept=accept_invalid_certs", True),
        ("sslmode=require&sslaccept=strict", False),
        (f"sslmode=require&sslaccept=strict&sslcert={_CERTIFICATE}", True),
        (f"sslmode=require&sslaccept=strict&sslcert={_ANOTHER}", False),
    ],
)
async def test_whom_a_url_trusts(
    query: str, connects: bool, tls_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection is encrypted when the URL asks for TLS, and verified when the URL's options ask for verification."""
    (tmp_path / ".postgresql").mkdir()
    shutil.copy(_ANOTHER, tmp_path / ".postgresql" / "root.crt")
    monkeypatch.setenv("HOME", str(tmp_path))
    settings = load_settings(database_url=f"{tls_url}?{query}")
    if not connects:
        with pytest.raises(DatabaseUnavailable):
            await connect(settings)
        return
    async with await connect(settings) as connection:
        assert connection.pgconn.ssl_in_use
