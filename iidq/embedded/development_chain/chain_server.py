"""The development chain's process: its JSON-RPC endpoint over HTTP, until SIGTERM or SIGINT."""

import asyncio
import signal
from concurrent.futures import ThreadPoolExecutor

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from iidq.embedded.development_chain.accounts import DEVELOPMENT_KEYS
from iidq.embedded.development_chain.chain_ledger import Ledger
from iidq.embedded.development_chain.chain_methods import ethereum_methods
from iidq.embedded.development_chain.json_rpc import answer
from iidq.embedded.endpoint import serve_locally

_MAX_BODY_BYTES = 5 * 1024 * 1024


def chain_app(ledger: Ledger, thread: ThreadPoolExecutor) -> Starlette:
    """The endpoint; ``thread`` has one worker, so that the EVM runs one request at a time, off the event loop."""
    methods = ethereum_methods(ledger)

    async def handle(request: Request) -> Response:
        # A web page can make a browser send text/plain anywhere, but not JSON without asking us first.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return PlainTextResponse("expected application/json\n", 415)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_BODY_BYTES:
                return PlainTextResponse(f"expected at most {_MAX_BODY_BYTES} bytes\n", 413)
        reply = await asyncio.get_running_loop().run_in_executor(thread, answer, bytes(body), methods)
        return Response(reply or b"", media_type="application/json")

    return Starlette(routes=[Route("/", handle, methods=["POST"])])


async def serve_chain(*, port: int, chain_id: int, genesis_timestamp: int | None) -> None:
    """Serve a new chain; print its URL, alone on one line, when it accepts connections."""
    stop = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
    ledger = Ledger(chain_id, DEVELOPMENT_KEYS, genesis_timestamp=genesis_timestamp)
    with ThreadPoolExecutor(max_workers=1) as thread:
        async with serve_locally(chain_app(ledger, thread), port=port) as url:
            print(url, flush=True)
            await stop.wait()
