"""Bad clients: a table of sent bytes and allowed replies, and a player over a real socket."""

import asyncio
import re
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Final, Literal

from tests.web.serving import JOBS

PATH: Final = f"{JOBS}/verify"
FIELDS: Final = {
    "registryAddress": "0x" + "ab" * 20,
    "manifestURI": "ipfs://QmYBL4FCdr7YmHm6UEeLGf6UQE2rMqkAEttbCFDNbm1u5o",
}
PLAYED_SECONDS: Final = 20.0
_STATUS = re.compile(rb"(?:\A|\n|\}|\d)HTTP/1\.1 (\d{3}) ")


@dataclass(frozen=True, slots=True)
class BadClient:
    """One client and the allowed statuses of its last reply."""

    name: str
    """The name in failure messages."""
    pieces: Sequence[bytes]
    """The sent bytes, piece by piece."""
    statuses: tuple[int | None, ...]
    """The allowed statuses of the last reply; ``None`` allows no reply."""
    then: Literal["reads", "leaves", "resets"] = "reads"
    """The end: read until the server closes, close, or reset the connection."""
    pause_seconds: float = 0.0
    """Seconds between the pieces."""


@dataclass(frozen=True, slots=True)
class Played:
    """The replies to a client."""

    received: bytes
    """All received bytes."""

    @property
    def statuses(self) -> list[int]:
        """The statuses of all replies in order, without 100."""
        return [status for status in map(int, _STATUS.findall(self.received)) if status != 100]


async def play(host: str, port: int, client: BadClient) -> Played:
    """Send, then read until the server closes. Raise :class:`TimeoutError` if the connection stays open."""
    reader, writer = await asyncio.open_connection(host, port)
    received = bytearray()

    async def read() -> None:
        while data := await reader.read(65536):
            received.extend(data)

    reading = asyncio.create_task(read())
    try:
        async with asyncio.timeout(PLAYED_SECONDS):
            try:
                for piece in client.pieces:
                    writer.write(piece)
                    await writer.drain()
                    if client.pause_seconds:
                        await asyncio.sleep(client.pause_seconds)
                if client.then == "reads":
                    await reading
            except ConnectionError:
                # The reply, if any, has been read.
                await asyncio.wait({reading})
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        if client.then == "resets":
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort() if client.then == "resets" else writer.close()
    return Played(bytes(received))


def part(disposition: str | bytes, value: bytes = b"x", *headers: bytes) -> bytes:
    """Return one part of a form with the boundary ``b``."""
    text = disposition.encode() if isinstance(disposition, str) else disposition
    return (
        b"--b\r\n"
        + b"\r\n".join([b"Content-Disposition: form-data; " + text, *headers])
        + b"\r\n\r\n"
        + value
        + b"\r\n"
    )


GOOD_FIELDS: Final = b"".join(part(f'name="{name}"', value.encode()) for name, value in FIELDS.items())
FILE: Final = part('name="file"; filename="x.bin"', b"content")
END: Final = b"--b--\r\n"


def head(*headers: str, length: int | None = None, boundary: str = "boundary=b", close: bool = True) -> bytes:
    """Return the head of a submission; by default its last reply closes the connection."""
    lines = [f"POST {PATH} HTTP/1.1", "Host: api", f"Content-Type: multipart/form-data; {boundary}", *headers]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    if close:
        lines.append("Connection: close")
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def form(body: bytes, *, boundary: str = "boundary=b") -> list[bytes]:
    """Return a whole submission with this body."""
    return [head(length=len(body), boundary=boundary) + body]


def _whole(*parts: bytes) -> list[bytes]:
    return form(b"".join([*parts, GOOD_FIELDS, END]))


def _chunked(*pieces: bytes) -> list[bytes]:
    return [head("Transfer-Encoding: chunked"), *(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)]


WHOLE: Final = FILE + GOOD_FIELDS + END
ACCEPTED: Final = (200, 503)
"""503 with Retry-After is the reply of a server without a database."""
SLOW_SECONDS: Final = 0.1
_MIB: Final = 1 << 20

LEAVING: Final = [
    BadClient(f"{how} after {stage}", pieces, (None,), then=how)
    for how in ("leaves", "resets")
    for stage, pieces in {
        "nothing": [],
        "half a request line": [b"POST /api/ver"],
        "half a head": [head(length=9)[:-9]],
        "a head": [head(length=1000)],
        "half a boundary": [head(length=1000) + b"--"],
        "half a part's header": [head(length=1000) + FILE[:30]],
        "a part's header": [head(length=1000) + FILE[: FILE.index(b"content")]],
        "half a file": [head(length=9 * _MIB) + FILE[:-2], *repeat(bytes(_MIB), 4)],
        "a file": [head(length=9000) + FILE],
        "all but the last byte": [head(length=len(WHOLE)) + WHOLE[:-1]],
        "a whole request": [head(length=len(WHOLE)) + WHOLE],
        "half a chunk's size": [head("Transfer-Encoding: chunked") + b"1"],
        "half a chunk": [head("Transfer-Encoding: chunked") + b"ffff\r\n" + FILE],
        "the last chunk's size": [*_chunked(WHOLE), b"0\r\n"],
        "asking to continue": [head("Expect: 100-continue", length=1000)],
    }.items()
]

SLOW: Final = [
    BadClient("says nothing", [], (None,)),
    BadClient("drips empty lines", [b"\r\n"] * 100, (None,), pause_seconds=SLOW_SECONDS),
    BadClient("drips a request line", [b"G"] * 100, (400, 408, None), pause_seconds=SLOW_SECONDS),
    BadClient("drips headers", [head(length=9)[:-2], *[b"X-A: b\r\n"] * 100], (408,), pause_seconds=SLOW_SECONDS),
    BadClient("stops in a head", [head(length=9)[:-2]], (408,)),
    BadClient("stops in a body", [head(length=1000) + FILE], (408,)),
    BadClient("drips a body", [head(length=1000), FILE[:-2], *[b"x"] * 100], (408,), pause_seconds=SLOW_SECONDS),
    BadClient("drips chunks", [*_chunked(FILE[:-2]), *[b"1\r\nx\r\n"] * 100], (408,), pause_seconds=SLOW_SECONDS),
    BadClient("never goes on after 100", [head("Expect: 100-continue", length=1000)], (408,)),
    BadClient("stops before the last chunk", _chunked(WHOLE), (408,)),
    BadClient("sends less than declared", [head(length=len(WHOLE) + 1) + WHOLE], (408,)),
]

FRAMING: Final = [
    BadClient("no HTTP at all", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], (400,)),
    BadClient("an unknown version", [b"GET / HTTP/9.9\r\nHost: api\r\n\r\n"], (400,)),
    BadClient("HTTP/2", [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], (400,)),
    BadClient("a space in a header's name", [head("X : a", length=0)], (400,)),
    BadClient("a NUL in a header", [head("X: a\x00b", length=0)], (400,)),
    BadClient("a lone CR in a header", [head("X: a\rb", length=0)], (400,)),
    BadClient("a folded header", [head("X: a", " b", length=0)], (400,)),
    BadClient("a header without a colon", [head("X", length=0)], (400,)),
    BadClient("two lengths", [head("Content-Length: 5", length=6) + b"123456"], (400,)),
    BadClient("two equal lengths", [head("Content-Length: 6", length=6) + b"123456"], (400,)),
    BadClient("two lengths in one", [head("Content-Length: 6, 6") + b"123456"], (400,)),
    BadClient("a length and chunks", [head("Transfer-Encoding: chunked", length=6) + b"0\r\n\r\n"], (400,)),
    BadClient("chunks and a length", [head("Content-Length: 6", "Transfer-Encoding: chunked") + b"0\r\n\r\n"], (400,)),
    BadClient("a negative length", [head("Content-Length: -1")], (400,)),
    BadClient("a signed length", [head("Content-Length: +6") + b"123456"], (400,)),
    BadClient("a length in hex", [head("Content-Length: 0x6") + b"123456"], (400,)),
    BadClient("an endless length", [head("Content-Length: " + "9" * 40)], (400,)),
    BadClient("an unknown encoding", [head("Transfer-Encoding: xchunked") + b"0\r\n\r\n"], (400,)),
    BadClient("chunks, then another encoding", [head("Transfer-Encoding: chunked, gzip") + b"0\r\n\r\n"], (400,)),
    BadClient("encoding hidden by a tab", [head("Transfer-Encoding:\x0bchunked") + b"0\r\n\r\n"], (400,)),
    BadClient("a chunk's size that is none", [head("Transfer-Encoding: chunked") + b"xyz\r\n"], (400,)),
    BadClient("an endless chunk", [head("Transfer-Encoding: chunked") + b"f" * 40 + b"\r\n"], (400,)),
    BadClient("a chunk longer than its size", [head("Transfer-Encoding: chunked") + b"2\r\nabcd\r\n"], (400,)),
    BadClient("a chunk that ends by LF", [head("Transfer-Encoding: chunked") + b"1\na\n0\n\n"], (400,)),
    BadClient("endless chunk extensions", [head("Transfer-Encoding: chunked") + b"1;", *[b"a" * 65536] * 4], (400,)),
    BadClient("endless trailers", [*_chunked(WHOLE), b"0\r\n", *[b"X-A: b\r\n" * 4096] * 8], (400, 200, 503)),
    BadClient("1 MB of headers", [head(*["X-Long: " + "x" * 1000] * 1000, length=0)], (431,)),
    BadClient("a header of 1 MB", [head("X-Long: " + "x" * _MIB, length=0)], (431,)),
    BadClient("1,000 headers", [head(*["X: y"] * 1000, length=0)], (431,)),
    BadClient("a URL of 1 MB", [b"GET /" + b"x" * _MIB + b" HTTP/1.1\r\nHost: api\r\n\r\n"], (414,)),
    BadClient("a body longer than declared", [head(length=len(WHOLE), close=False) + WHOLE + b"and more"], ACCEPTED),
    BadClient(
        "garbage behind a good request",
        [head(length=len(WHOLE), close=False) + WHOLE, b"\x00\x01garbage"],
        (200, 400, 503),
    ),
    BadClient("a path of bytes", [b"GET /\xff\xfe HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n"], (400, 404)),
    BadClient("a path that climbs", [b"GET /../../etc/passwd HTTP/1.1\r\nConnection: close\r\n\r\n"], (400, 404)),
    BadClient(
        "an upgrade", [b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: upgrade, close\r\nUpgrade: h2c\r\n\r\n"], (200,)
    ),
    BadClient(
        "an upgrade, then another request",
        [
            b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
            b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        ],
        (200,),
    ),
    BadClient("an unknown expectation", [head("Expect: miracles", length=len(WHOLE)) + WHOLE], (417, *ACCEPTED)),
]

FORMS: Final = [
    BadClient("no boundary", form(WHOLE, boundary=""), (400,)),
    BadClient("an empty boundary", form(WHOLE, boundary='boundary=""'), (400,)),
    BadClient("a boundary of 71 characters", form(WHOLE, boundary="boundary=" + "x" * 71), (400,)),
    BadClient("two boundaries", form(WHOLE, boundary="boundary=b; boundary=c"), (400,)),
    BadClient("another boundary than declared", form(WHOLE, boundary="boundary=c"), (400,)),
    BadClient("boundaries without their dashes", form(WHOLE.replace(b"--b", b"b")), (400,)),
    BadClient("boundaries by LF", form(WHOLE.replace(b"\r\n", b"\n")), (400,)),
    BadClient("doubled boundaries", form(WHOLE.replace(b"--b\r\n", b"--b\r\n--b\r\n")), (400,)),
    BadClient("no closing boundary", form(FILE + GOOD_FIELDS), (400,)),
    BadClient("two closing boundaries", form(WHOLE + END), ACCEPTED),
    BadClient("nothing but the end", form(END), (400,)),
    BadClient("an empty body", form(b""), (400,)),
    BadClient("10,000 parts", form(part('name="a"') * 10_000 + END), (400,)),
    BadClient("a part of 10,000 headers", _whole(part('name="a"', b"x", *[b"X: y"] * 10_000)), (400,)),
    BadClient("a part's header of 1 MB", _whole(part('name="a"', b"x", b"X: " + b"y" * _MIB)), (400, 413)),
    BadClient("a part without a name", _whole(part("nothing")), (400,)),
    BadClient("a part with two names", _whole(part('name="a"; name="b"')), (400,)),
    BadClient(
        "a part with two dispositions", _whole(part('name="a"', b"x", b"Content-Disposition: form-data")), (400,)
    ),
    BadClient("a folded part header", _whole(part('name="a"', b"x", b"X: y", b" z")), (400,)),
    BadClient("CRLF in a field", form(part('name="registryAddress"', b"0x12\r\n\r\nX: y") + WHOLE), (400,)),
    BadClient("a field of 900 kB", _whole(part('name="manifestURI"', b"x" * 900_000)), (400,)),
    BadClient("an unknown field of 2 MB", _whole(part('name="unknown"', b"x" * 2 * _MIB)), (413,)),
    BadClient("a field that is no UTF-8", _whole(part('name="rpcUrl"', b"\xff\xfe")), (400,)),
    BadClient("the file twice", _whole(FILE, FILE), (400,)),
    BadClient("a field twice", _whole(FILE, part('name="manifestURI"', b"https://example.org/")), (400,)),
    BadClient("a field as a file", _whole(FILE, part('name="rpcUrl"; filename="x"')), (400,)),
    BadClient("a file as a field", _whole(part('name="file"', b"/etc/passwd")), (400,)),
    *(
        BadClient(f"the file name {name[:40]!r}", _whole(part(b'name="file"; ' + name)), statuses)
        for name, statuses in {
            b'filename="../../etc/passwd"': (400,),
            b'filename="..\\..\\x"': (400,),
            b'filename="a\x00b"': (400,),
            b'filename="a%00b"': (400,),
            b'filename="a%0D%0AX: y"': (400,),
            b'filename="' + b"x" * 300 + b'"': (400,),
            b'filename="' + b"x" * 9000 + b'"': (400,),
            b'filename="\xff\xfe"': (400,),
            b'filename="a"; filename="b"': (400,),
            b"filename*=UTF-8''..%2Fpasswd": (400,),
            b"filename*=UTF-8''%00": (400,),
            b"filename*=UTF-8''%FF": (400,),
            b"filename*=utf-7''+AC8-": (400,),
            b"filename*=UTF-8": (400,),
            b'filename*0=".."; filename*1="/x"': (400, *ACCEPTED),
            b'filename="a\\"b"': ACCEPTED,
            b'filename="a;b=c"': ACCEPTED,
            b'filename="a%22b"': ACCEPTED,
            b"filename*=UTF-8''na%C3%AFve.txt": ACCEPTED,
            'filename="na\u00efve \U0001f600.txt"'.encode(): ACCEPTED,
        }.items()
    ),
    BadClient("the last chunk twice", [*_chunked(WHOLE), b"0\r\n\r\n0\r\n\r\n"], ACCEPTED),
    BadClient("chunks of one byte", [*_chunked(*(bytes([byte]) for byte in WHOLE)), b"0\r\n\r\n"], ACCEPTED),
]

ALL: Final = [*LEAVING, *SLOW, *FRAMING, *FORMS]
