"""The process of the py-evm chain: JSON-RPC 2.0 over HTTP on 127.0.0.1, until SIGTERM or SIGINT.

Codes and messages follow the JSON-RPC specification, and geth where that is silent.
"""

import argparse
import asyncio
import json
import logging
import signal
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from eth_utils.exceptions import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from iidq.embedded.development_chain.evm_chain import EvmChain, Method, RpcError
from iidq.embedded.endpoint import serve_locally
from iidq.errors import SettingsFault
from iidq.provenance.ethereum.development_accounts import DEVELOPMENT_KEYS

_MAX_BODY_BYTES = 5 * 1024 * 1024
_PARSE_ERROR, _INVALID_REQUEST, _METHOD_NOT_FOUND, _INVALID_PARAMS = -32700, -32600, -32601, -32602
_INTERNAL_ERROR = -32603

_log = logging.getLogger(__name__)


def answer(body: bytes, methods: Mapping[str, Method]) -> bytes:
    """Return the reply to the call, or the batch of calls, in ``body``."""
    try:
        request = json.loads(body)
    except ValueError:
        reply: Any = _error(None, RpcError(_PARSE_ERROR, "parse error"))
    else:
        batch = isinstance(request, list)
        reply = [_answer_call(call, methods) for call in request] if batch else _answer_call(request, methods)
    return json.dumps(reply, separators=(",", ":")).encode()


def _answer_call(call: Any, methods: Mapping[str, Method]) -> dict[str, Any]:
    if not isinstance(call, dict) or not isinstance(call.get("method"), str):
        return _error(None, RpcError(_INVALID_REQUEST, "invalid request"))
    name, call_id = call["method"], call.get("id")
    if name not in methods:
        return _error(call_id, RpcError(_METHOD_NOT_FOUND, f"the method {name} does not exist/is not available"))
    try:
        return {"jsonrpc": "2.0", "id": call_id, "result": methods[name](*call.get("params", []))}
    except RpcError as error:
        return _error(call_id, error)
    except (ValueError, TypeError, AttributeError, LookupError, ValidationError) as error:
        # Methods read their parameters without checks: a wrong one ends in one of these errors.
        _log.debug("%s failed", name, exc_info=True)
        return _error(call_id, RpcError(_INVALID_PARAMS, f"invalid argument: {error}"))
    except Exception:
        # An error here would cost the other calls of the batch their replies.
        _log.exception("%s failed", name)
        return _error(call_id, RpcError(_INTERNAL_ERROR, "internal error"))


def _error(call_id: Any, error: RpcError) -> dict[str, Any]:
    body = {"code": error.code, "message": error.message} | ({} if error.data is None else {"data": error.data})
    return {"jsonrpc": "2.0", "id": call_id, "error": body}


def chain_app(methods: Mapping[str, Method], thread: ThreadPoolExecutor) -> Starlette:
    """Return the endpoint; ``thread`` has a single worker, so that requests run in order, off the event loop."""

    async def handle(request: Request) -> Response:
        # A web page can make a browser send text/plain to any host, but JSON only after a preflight request.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            return PlainTextResponse("expected application/json\n", 415)
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MAX_BODY_BYTES:
                return PlainTextResponse(f"expected at most {_MAX_BODY_BYTES} bytes\n", 413)
        reply = await asyncio.get_running_loop().run_in_executor(thread, answer, bytes(body), methods)
        return Response(reply, media_type="application/json")

    return Starlette(routes=[Route("/", handle, methods=["POST"])])


async def serve_chain(*, port: int, chain_id: int) -> None:
    """Serve a new chain; print the line ``Listening on <host>:<port>``, as anvil does, once it accepts connections."""
    stop = asyncio.Event()
    for signal_number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signal_number, stop.set)
    methods = EvmChain(chain_id, DEVELOPMENT_KEYS).methods()
    with ThreadPoolExecutor(max_workers=1) as thread:
        async with serve_locally(chain_app(methods, thread), port=port) as url:
            print("Listening on", url.removeprefix("http://"), flush=True)
            await stop.wait()


def main() -> None:
    """Run the command line ``python -m iidq.embedded.development_chain.chain_server --port 0 --chain-id 31337``."""
    parser = argparse.ArgumentParser(description="A development chain on py-evm.")
    parser.add_argument("--port", type=int, required=True, help="0 = any free port")
    parser.add_argument("--chain-id", type=int, required=True)
    arguments = parser.parse_args()
    try:
        asyncio.run(serve_chain(port=arguments.port, chain_id=arguments.chain_id))
    except SettingsFault as fault:
        raise SystemExit(fault.message) from None


if __name__ == "__main__":
    main()
