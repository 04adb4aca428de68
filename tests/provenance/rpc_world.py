"""A chain in memory, with faulty endpoints, at httpx's transport."""

import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import httpx

from iidq.provenance.ethereum.registry import CONTENT_REGISTERED_TOPIC, ENTRIES_SELECTOR
from iidq.provenance.ethereum.rpc import RpcEndpoint

REGISTRY = "0x" + "5e" * 20
CREATOR = "0xA11B0dC0ef5E51b47368a9AF802d97201C0c6F52"
CONTENT_HASH = "0x0abe8d173cc31e8c4095fdd2576bef72f596f8c804c2623022c7cab5c6b12c8e"
MANIFEST_URI = "ipfs://QmYBL4FCdr7YmHm6UEeLGf6UQE2rMqkAEttbCFDNbm1u5o"
CHAIN_ID = 84532


def word(value: int) -> bytes:
    return value.to_bytes(32)


def packed(text: bytes) -> bytes:
    return word(len(text)) + text + bytes(-len(text) % 32)


def old_layout(creator: str, content_hash: str, uri: bytes, timestamp: int) -> bytes:
    head = word(int(creator, 16)) + bytes.fromhex(content_hash[2:]) + word(0x80) + word(timestamp)
    return head + packed(uri)


def new_layout(creator: str, uri: bytes, timestamp: int) -> bytes:
    return word(int(creator, 16)) + word(timestamp) + word(0x60) + packed(uri)


@dataclass
class World:
    """Blocks with chosen times, one registry, and the data of ``entries``; records the requests.

    ``code`` is the registry's. ``wallet`` is the answer of a creator with code, None for a plain account.
    """

    times: list[int]
    entry: bytes = b""
    code: bytes = b"\x60"
    wallet: dict[str, Any] | None = None
    chain_id: int = CHAIN_ID
    logs: list[dict[str, Any]] = field(default_factory=list)
    fork: int = 0
    asked: list[str] = field(default_factory=list)
    params: list[list[Any]] = field(default_factory=list)

    def block_hash(self, number: int) -> str:
        return f"0x{self.fork:032x}{number:032x}"

    def block(self, tag: str) -> dict[str, Any] | None:
        number = len(self.times) - 1 if not tag.startswith("0x") else int(tag, 16)
        if number >= len(self.times):
            return None
        return {"number": hex(number), "hash": self.block_hash(number), "timestamp": hex(self.times[number])}

    def register(self, number: int, tx_hash: str, *, creator: str = CREATOR, content_hash: str = CONTENT_HASH) -> None:
        self.entry = new_layout(creator, MANIFEST_URI.encode(), self.times[number])
        self.logs.append(
            {
                "address": REGISTRY,
                "blockNumber": hex(number),
                "topics": [CONTENT_REGISTERED_TOPIC, content_hash, "0x" + creator[2:].lower().rjust(64, "0")],
                "data": "0x",
                "transactionHash": tx_hash,
            }
        )

    def answer(self, method: str, params: list[Any]) -> dict[str, Any]:
        self.asked.append(method)
        self.params.append(params)
        match method:
            case "eth_chainId":
                return {"result": hex(self.chain_id)}
            case "eth_getBlockByNumber":
                return {"result": self.block(params[0])}
            case "eth_call":
                if params[0]["to"] != REGISTRY:
                    assert params[0]["data"].startswith("0x1626ba7e")
                    return self.wallet or {"result": "0x"}
                assert params[0]["data"].startswith(ENTRIES_SELECTOR)
                return {"result": "0x" + self.entry.hex()}
            case "eth_getCode":
                if params[0] != REGISTRY:
                    return {"result": "0x60" if self.wallet else "0x"}
                return {"result": "0x" + self.code.hex()}
            case "eth_getLogs":
                wanted = range(int(params[0]["fromBlock"], 16), int(params[0]["toBlock"], 16) + 1)
                return {"result": [log for log in self.logs if int(log["blockNumber"], 16) in wanted]}
            case _:
                return {"error": {"code": -32601, "message": "method not found"}}


def error(message: str, code: int = -32000) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


Answer = Callable[[str, list[Any]], dict[str, Any]]
Handler = Callable[[httpx.Request], Coroutine[None, None, httpx.Response]]


@dataclass
class Server:
    """Answer JSON-RPC for a world; ``posts`` has the number of calls of each body."""

    answer: Answer
    posts: list[int] = field(default_factory=list)

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        calls = body if isinstance(body, list) else [body]
        self.posts.append(len(calls))
        answers = [{"jsonrpc": "2.0", "id": c["id"], **self.answer(c["method"], c["params"])} for c in calls]
        return httpx.Response(200, json=answers if isinstance(body, list) else answers[0])


def is_batch(request: httpx.Request) -> bool:
    return request.content.startswith(b"[")


def endpoint(handler: Handler, url: str = "https://rpc.example/v2/secret-key", **options: Any) -> RpcEndpoint:
    return RpcEndpoint(url, httpx.AsyncClient(transport=httpx.MockTransport(handler)), **options)
