"""A TCP proxy with a silent mode: data is read and dropped, and no connection is closed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class SilentProxy:
    """A proxy in front of ``server_port``. Silence falls on open connections only; later connections are served."""

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._serving: set[asyncio.Task[None]] = set()
        self._silences: list[asyncio.Event] = []
        self.port = 0
        self.accepted = 0

    def fall_silent(self) -> None:
        """Drop all data on the connections open now."""
        for silence in self._silences:
            silence.set()
        self._silences.clear()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one client until either side ends."""
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        self.accepted += 1
        silence = asyncio.Event()
        self._silences.append(silence)
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        try:
            ways = [_pass_on(reader, server_writer, silence), _pass_on(server_reader, writer, silence)]
            await asyncio.gather(*ways)
        except asyncio.CancelledError:
            # The test is over.
            pass
        finally:
            writer.close()
            server_writer.close()
            self._serving.discard(task)

    async def end(self) -> None:
        """Close all connections."""
        serving = list(self._serving)
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, silence: asyncio.Event) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            if not silence.is_set():
                writer.write(data)
                await writer.drain()
    if not silence.is_set():
        writer.close()


@contextlib.asynccontextmanager
async def silent_proxy(server_port: int) -> AsyncIterator[SilentProxy]:
    """Yield a proxy in front of ``server_port`` of 127.0.0.1."""
    proxy = SilentProxy(server_port)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.end()
