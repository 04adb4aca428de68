"""JSON-RPC 2.0: encode requests, decode one result per request, and check the values in a result. Pure.

Endpoints disagree about errors; codes and words classify an error here. The endpoint's text goes no further, because
some endpoints quote the account's key.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from pydantic_core import from_json

from iidq.errors import PermanentFault, RpcFault
from iidq.guarded_http.fetch import MAX_RETRY_AFTER_SECONDS


class Request(NamedTuple):
    """One call; equal requests compare as equal."""

    method: str
    """The JSON-RPC method."""
    params_json: str
    """The array of parameters, as JSON text."""


class BlockHeader(NamedTuple):
    """The fields of a block header that a verification needs."""

    number: int
    """Height."""
    hash: str
    """``0x`` and 64 lower-case hex digits."""
    timestamp: int
    """Unix seconds."""


class CallReverted(PermanentFault):
    """The contract refused the call: a revert, an invalid instruction, no gas left."""

    code = "rpc.reverted"


class AnswerTooLong(CallReverted):
    """The contract's answer exceeds the bound; treated as a refusal."""

    code = "rpc.too_long"


class CallRefused(RpcFault):
    """The endpoint refused the call with a JSON-RPC error.

    ``block_range`` is the inclusive range of blocks in the error's suggestion; None without a suggestion.
    """

    code = "rpc.refused"

    def __init__(self, message: str, *, block_range: tuple[int, int] | None = None) -> None:
        super().__init__(message)
        self.block_range = block_range


class BatchRefused(Exception):
    """The endpoint refuses so many calls in one body; never leaves the client."""


CallResult = Any
"""A call's result, or an exception for the caller to raise."""

_QUANTITY: Final = re.compile(r"0x[0-9a-fA-F]{1,64}")
_REVERTED: Final = re.compile("revert", re.IGNORECASE)
_EXECUTION_FAILED: Final = re.compile(
    r"invalid opcode|out of gas|bad (?:jump|instruction)|invalid jump|stack (?:under|over)flow"
    r"|undefined instruction|vm execution|evm error|opcode not found",
    re.IGNORECASE,
)
# Trouble of the node, worded like a failed execution: a fork without its upstream, lost state.
_NODE_TROUBLE: Final = re.compile(
    r"time.?out|timed out|database|missing trie|header not found|unavailable|connection|upstream|cancell?ed|aborted",
    re.IGNORECASE,
)
_BUSY: Final = re.compile(
    r"rate.?limit|too many requests|throttl|capacity|request limit|requests? per|(?:request|call) count|quota"
    r"|try again|overload|compute units",
    re.IGNORECASE,
)
_BATCH: Final = re.compile(r"batch", re.IGNORECASE)
_SUGGESTED_RANGE: Final = re.compile(r"\[?\s*(0x[0-9a-f]+)\s*(?:,|-|to)\s*(0x[0-9a-f]+)\s*\]?", re.IGNORECASE)


def encode(requests: Mapping[int, Request]) -> bytes:
    """Return the body for calls by id: one object, or an array of several (a batch)."""
    calls = [
        f'{{"jsonrpc":"2.0","id":{id_},"method":"{request.method}","params":{request.params_json}}}'
        for id_, request in requests.items()
    ]
    return (calls[0] if len(calls) == 1 else f"[{','.join(calls)}]").encode()


def decode(body: bytes, ids: Sequence[int]) -> dict[int, CallResult]:
    """Return the result of every id.

    A call without an answer, or with two, gets an :class:`RpcFault`. Raises :class:`RpcFault` for a body that is not
    JSON, and :class:`BatchRefused` if one error answers a whole batch.
    """
    try:
        # Stops at 201 levels of nesting, and accepts only UTF-8.
        answer = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise RpcFault("the RPC endpoint's answer is not JSON", code="rpc.not_json") from None
    answers = answer if isinstance(answer, list) else [answer]
    if len(ids) > 1:
        _raise_if_refused_whole(answer, answers)
    results: dict[int, CallResult] = {}
    for item in answers:
        id_ = item.get("id") if isinstance(item, dict) else None
        if type(id_) is not int and not (id_ is None and len(ids) == 1 and _is_error(item)):
            continue
        key = ids[0] if id_ is None else id_
        results[key] = _nonsense("answered a call twice") if key in results else _result(item)
    return {id_: results[id_] if id_ in results else _nonsense("did not answer a call") for id_ in ids}


def _raise_if_refused_whole(answer: Any, answers: Sequence[Any]) -> None:
    """Raise :class:`BatchRefused` for one error object, or if every answer's error mentions batches."""
    if not all(_is_error(item) for item in answers):
        return
    faults = [_error_fault(item["error"]) for item in answers]
    if isinstance(answer, dict):
        raise faults[0] if faults[0].code == "rpc.limited" else BatchRefused
    if answers and all(_BATCH.search(_message(item["error"])) for item in answers):
        raise BatchRefused


def _is_error(item: Any) -> bool:
    return isinstance(item, dict) and item.get("error") is not None


def _result(item: dict[str, Any]) -> CallResult:
    if _is_error(item):
        return _error_fault(item["error"])
    if "result" not in item:
        return _nonsense("answered with neither result nor error")
    return item["result"]


def _error_fault(error: Any) -> PermanentFault | RpcFault:
    message = _message(error)
    code = error.get("code") if isinstance(error, dict) else None
    if code == 3 or _is_revert(message):
        return CallReverted("the contract refused the call")
    backoff = _backoff_seconds(error)
    if code == 429 or backoff is not None or _BUSY.search(message):
        return RpcFault(
            "the RPC endpoint refuses calls for now (rate limit)", code="rpc.limited", retry_after_seconds=backoff
        )
    number = f" {code}" if type(code) is int else ""
    return CallRefused(f"the RPC endpoint answered with error{number}", block_range=_suggested(message))


def _is_revert(message: str) -> bool:
    if _REVERTED.search(message):
        return True
    return bool(_EXECUTION_FAILED.search(message)) and not _NODE_TROUBLE.search(message)


def _message(error: Any) -> str:
    message = error.get("message") if isinstance(error, dict) else error
    return message[:2_000] if isinstance(message, str) else ""


def _backoff_seconds(error: Any) -> float | None:
    """Return the delay that Infura puts into the error."""
    data = error.get("data") if isinstance(error, dict) else None
    seconds = data.get("backoff_seconds") if isinstance(data, dict) else None
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and seconds >= 0:
        return float(min(seconds, MAX_RETRY_AFTER_SECONDS))
    return None


def _suggested(message: str) -> tuple[int, int] | None:
    match = _SUGGESTED_RANGE.search(message)
    if match is None:
        return None
    first, last = int(match[1], 16), int(match[2], 16)
    return (first, last) if first <= last else None


def _nonsense(problem: str) -> RpcFault:
    return RpcFault(f"the RPC endpoint {problem}", code="rpc.nonsense")


def quantity(value: Any) -> int:
    """Return the number of a JSON-RPC quantity (``0x1a``); raise :class:`RpcFault` for anything else."""
    if isinstance(value, str) and _QUANTITY.fullmatch(value):
        return int(value, 16)
    raise _nonsense("sent something other than a quantity")


def hex_bytes(value: Any) -> bytes:
    """Return the bytes of JSON-RPC data (``0x`` and hex pairs); raise :class:`RpcFault` for anything else."""
    if isinstance(value, str) and value.startswith("0x"):
        try:
            data = bytes.fromhex(value[2:])
        except ValueError:
            data = b""
        # ``fromhex`` skips blanks between the pairs.
        if 2 + 2 * len(data) == len(value):
            return data
    raise _nonsense("sent something other than hex data")


def read_block(value: Any) -> BlockHeader:
    """Return the block of an ``eth_getBlockByNumber`` result; raise :class:`RpcFault` for null or anything else."""
    if value is None:
        raise RpcFault("the RPC endpoint does not know the block", code="rpc.block_unknown")
    if not isinstance(value, dict) or len(hex_bytes(value.get("hash"))) != 32:
        raise _nonsense("sent something other than a block")
    return BlockHeader(quantity(value.get("number")), value["hash"].lower(), quantity(value.get("timestamp")))
