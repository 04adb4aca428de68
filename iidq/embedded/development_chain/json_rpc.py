"""JSON-RPC 2.0 for a server: bytes of a request, or of a batch, to the bytes of the reply.

Codes and messages follow the specification and, where that is silent, geth: clients are written against geth.
"""

import inspect
import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

MAX_BATCH_CALLS = 1000

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
SERVER_ERROR = -32000
EXECUTION_REVERTED = 3

Method = Callable[..., Any]

_log = logging.getLogger(__name__)


class RpcError(Exception):
    """A call's error object: ``code``, ``message`` and, if not None, ``data``."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


def answer(body: bytes, methods: Mapping[str, Method]) -> bytes | None:
    """Carry out the call or the batch of calls in ``body``; None if there is nothing to reply (notifications)."""
    try:
        request = json.loads(body)
    except ValueError:
        return _encoded(_error(None, RpcError(PARSE_ERROR, "parse error")))
    if not isinstance(request, list):
        reply = _answer_call(request, methods)
        return None if reply is None else _encoded(reply)
    if not request:
        return _encoded(_error(None, RpcError(INVALID_REQUEST, "empty batch")))
    if len(request) > MAX_BATCH_CALLS:
        return _encoded(_error(None, RpcError(INVALID_REQUEST, f"batch too large: at most {MAX_BATCH_CALLS} calls")))
    replies = [reply for call in request if (reply := _answer_call(call, methods)) is not None]
    return _encoded(replies) if replies else None


def _answer_call(call: Any, methods: Mapping[str, Method]) -> dict[str, Any] | None:
    if not isinstance(call, dict) or call.get("jsonrpc") != "2.0" or not isinstance(call.get("method"), str):
        return _error(call.get("id") if isinstance(call, dict) else None, RpcError(INVALID_REQUEST, "invalid request"))
    is_notification = "id" not in call
    call_id = call.get("id")
    if isinstance(call_id, dict | list | bool):
        return _error(None, RpcError(INVALID_REQUEST, "invalid request"))
    try:
        result = _result(call["method"], call.get("params"), methods)
    except RpcError as error:
        return None if is_notification else _error(call_id, error)
    except Exception:
        _log.exception("%s failed", call["method"])
        return None if is_notification else _error(call_id, RpcError(INTERNAL_ERROR, "internal error"))
    return None if is_notification else {"jsonrpc": "2.0", "id": call_id, "result": result}


def _result(name: str, params: Any, methods: Mapping[str, Method]) -> Any:
    method = methods.get(name)
    if method is None:
        raise RpcError(METHOD_NOT_FOUND, f"the method {name} does not exist/is not available")
    if params is None:
        params = []
    if not isinstance(params, list):
        raise RpcError(INVALID_PARAMS, "non-array args")
    try:
        inspect.signature(method).bind(*params)
    except TypeError as error:
        raise RpcError(INVALID_PARAMS, f"wrong number of arguments: {error}") from None
    return method(*params)


def _error(call_id: Any, error: RpcError) -> dict[str, Any]:
    body: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.data is not None:
        body["data"] = error.data
    return {"jsonrpc": "2.0", "id": call_id, "error": body}


def _encoded(reply: Any) -> bytes:
    return json.dumps(reply, separators=(",", ":")).encode()
