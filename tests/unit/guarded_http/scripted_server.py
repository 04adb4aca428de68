"""A real HTTP server on 127.0.0.1; a test writes the answers, also broken answers, byte by byte."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class Request:
    """A received request: target, and header fields in lower case."""

    target: str
    headers: dict[str, str]


@dataclass(slots=True)
class Server:
    """Address of the server, and the requests so far."""

    port: int = 0
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


Answer = Callable[[Request, asyncio.StreamWriter], Awaitable[None]]


def response(body: bytes = b"", *fields: str, status: int = 200) -> bytes:
    """Return a well-formed response; ``fields`` are whole header lines."""
    lines = (f"HTTP/1.1 {status} Scripted", f"Content-Length: {len(body)}", *fields)
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + body


def always(raw: bytes) -> Answer:
    """Return the same bytes for every request."""

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)

    return answer


async def never(request: Request, writer: asyncio.StreamWriter) -> None:
    """Take the request and stay silent."""
    await asyncio.Event().wait()


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[Server]:
    """Serve until the block ends, then cut off the rest. ``hung_up`` is set when a client leaves."""
    server = Server()
    tasks: set[asyncio.Task[None]] = set()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.connections += 1
        ahead = b""
        try:
            while True:
                head = (ahead + await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                pairs = (line.partition(":") for line in head[1:] if line)
                request = Request(head[0].split(" ")[1], {name.lower(): value.strip() for name, _, value in pairs})
                server.requests.append(request)
                server.asked.set()
                answering = asyncio.ensure_future(answer(request, writer))
                # The next byte belongs to the next request, or the client has left.
                gone = asyncio.ensure_future(reader.read(1))
                try:
                    await asyncio.wait((answering, gone), return_when=asyncio.FIRST_COMPLETED)
                    if not answering.done():
                        return
                    answering.result()
                    await writer.drain()
                finally:
                    answering.cancel()
                    gone.cancel()
                    await asyncio.gather(answering, gone, return_exceptions=True)
                ahead = b"" if gone.cancelled() else gone.result()
                if writer.is_closing():
                    return
        except (asyncio.IncompleteReadError, OSError):
            return
        finally:
            server.hung_up.set()
            writer.transport.abort()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(converse(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    listener = await asyncio.start_server(accept, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await listener.wait_closed()
