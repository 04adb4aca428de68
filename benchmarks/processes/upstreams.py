"""An IPFS gateway and a JSON-RPC endpoint answering from memory, in one separate process.

Both serve the samples of one file (see ``benchmarks.samples``), and parse no more HTTP than iidq's clients send.
"""

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any, cast

from benchmarks.processes.lines import Lines, run
from benchmarks.samples import BLOCK_HASH, BLOCK_NUMBER, BLOCK_TIME, CHAIN_ID, Sample, abi_entry, read_samples

_ENTRIES = "0x267b6922"
_BLOCK = {"number": hex(BLOCK_NUMBER), "hash": BLOCK_HASH, "timestamp": hex(BLOCK_TIME)}


class Upstreams(asyncio.Protocol):
    """One kept connection; ``GET /ipfs/CID`` or a POST of JSON-RPC."""

    def __init__(self, blocks: dict[str, bytes], entries: dict[str, str]) -> None:
        self._blocks = blocks
        self._entries = entries
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio at the start of the connection."""
        # uvloop's transports are no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio: answer each complete request."""
        self._received += data
        while True:
            head, found, rest = self._received.partition(b"\r\n\r\n")
            if not found:
                return
            request, *headers = head.split(b"\r\n")
            lengths = [line.split(b":")[1] for line in headers if line.lower().startswith(b"content-length:")]
            length = int(lengths[0]) if lengths else 0
            if len(rest) < length:
                return
            self._received = rest[length:]
            self._answer(request.split(b" ")[1].decode(), rest[:length])

    def _answer(self, target: str, body: bytes) -> None:
        status, media_type = b"200 OK", b"application/json"
        if body:
            asked = json.loads(body)
            answers = [self._call(call) for call in asked] if isinstance(asked, list) else self._call(asked)
            content = json.dumps(answers, separators=(",", ":")).encode()
        else:
            cid = target.removeprefix("/ipfs/").partition("?")[0]
            content = self._blocks.get(cid, b"")
            status = b"200 OK" if content else b"404 Not Found"
            media_type = b"application/vnd.ipld.raw"
        assert self._transport is not None
        self._transport.write(
            b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s"
            % (status, media_type, len(content), content)
        )

    def _call(self, call: dict[str, Any]) -> dict[str, Any]:
        result: Any
        match call["method"]:
            case "eth_chainId":
                result = hex(CHAIN_ID)
            case "eth_getBlockByNumber":
                result = _BLOCK
            case "eth_call":
                data = call["params"][0].get("data") or call["params"][0].get("input")
                result = self._entries[data] if data.startswith(_ENTRIES) else "0x"
            case "eth_getCode":
                result = "0x6001"
            case "eth_blockNumber":
                result = hex(BLOCK_NUMBER)
            case method:
                raise ValueError(f"the endpoint was not made for {method}")
        return {"jsonrpc": "2.0", "id": call["id"], "result": result}


async def serve(samples: list[Sample]) -> None:
    """Serve until standard input closes; READY has the port."""
    blocks = {sample.cid: sample.block for sample in samples}
    entries = {_ENTRIES + sample.content_hash[2:]: abi_entry(sample) for sample in samples}
    lines = Lines()
    server = await asyncio.get_running_loop().create_server(lambda: Upstreams(blocks, entries), "127.0.0.1", 0)
    async with server:
        await lines.ready(server.sockets[0].getsockname()[1])
        await lines.closed()
    lines.result()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("samples", type=Path)
    run(serve(read_samples(parser.parse_args().samples)))
