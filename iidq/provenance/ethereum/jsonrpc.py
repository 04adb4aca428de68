"""JSON-RPC 2.0 in both directions: requests into bytes, bytes into one outcome per request; pure.

An outcome is the call's result or the fault it met. Endpoints agree on little about errors, so they are told apart
here, once, by code and by words; their texts go no further, because some quote the account's key.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from pydantic_core import from_json

from iidq.errors import PermanentFault, RpcFault
from iidq.guarded_http.fetch import MAX_RETRY_AFTER_SECONDS


class Request(NamedTuple):
    """One call: its method and its parameters, already in JSON (which is also how equal calls are recognised)."""

    method: str
    params_json: str


class CallReverted(PermanentFault):
    """The contract ran and refused: a revert, an invalid instruction, no gas left."""

    code = "rpc.reverted"


class AnswerTooLong(CallReverted):
    """The contract answered with more than is read of one, which is as good as a refusal."""

    code = "rpc.too_long"


class CallRefused(RpcFault):
    """The endpoint answered this call with a JSON-RPC error of its own making.

    ``block_range`` is the span of blocks it suggested instead, inclusive, when it suggested one.
    """

    code = "rpc.refused"

    def __init__(self, message: str, *, block_range: tuple[int, int] | None = None) -> None:
        super().__init__(message)
        self.block_range = block_range


class BatchRefused(Exception):
    """The endpoint does not take this many calls in one body; never leaves the client."""


Outcome = Any  # a result, or an Exception for the caller to raise

_REVERTED: Final = re.compile("revert", re.IGNORECASE)
_EXECUTION_FAILED: Final = re.compile(
    r"invalid opcode|out of gas|bad (?:jump|instruction)|invalid jump|stack (?:under|over)flow"
    r"|undefined instruction|vm execution|evm error|opcode not found",
    re.IGNORECASE,
)
# A node's own trouble in the words of a failed execution: a fork whose upstream is away, lost state.
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
    """Return the body for these calls by id: one object, or an array of several (a batch)."""
    calls = [
        f'{{"jsonrpc":"2.0","id":{id_},"method":"{request.method}","params":{request.params_json}}}'
        for id_, request in requests.items()
    ]
    return (calls[0] if len(calls) == 1 else f"[{','.join(calls)}]").encode()


def decode(body: bytes, ids: Sequence[int]) -> dict[int, Outcome]:
    """Return the outcome of every id that was asked for.

    A call without an answer, or with two, gets an :class:`RpcFault`; so does everything if the body is no
    JSON-RPC. Raises :class:`BatchRefused` if a batch met one error for all of it.
    """
    try:
        # It gives up at 201 levels, whatever the interpreter's recursion limit, and takes UTF-8 alone.
        answer = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise RpcFault("the RPC endpoint's answer is not JSON", code="rpc.not_json") from None
    answers = answer if isinstance(answer, list) else [answer]
    if len(ids) > 1:
        _raise_if_refused_whole(answer, answers)
    outcomes: dict[int, Outcome] = {}
    for item in answers:
        id_ = item.get("id") if isinstance(item, dict) else None
        if type(id_) is not int and not (id_ is None and len(ids) == 1 and _is_error(item)):
            continue
        key = ids[0] if id_ is None else id_
        outcomes[key] = _nonsense("answered one call twice") if key in outcomes else _outcome(item)
    return {id_: outcomes[id_] if id_ in outcomes else _nonsense("left a call unanswered") for id_ in ids}


def _raise_if_refused_whole(answer: Any, answers: Sequence[Any]) -> None:
    """One error object for a whole batch, or the word "batch" in every answer's error, is a refusal of batching."""
    if not all(_is_error(item) for item in answers):
        return
    faults = [_error_fault(item["error"]) for item in answers]
    if isinstance(answer, dict) and not _is_busy(faults[0]):
        raise BatchRefused
    if isinstance(answer, dict):
        raise faults[0]
    if answers and all(_BATCH.search(_message(item["error"])) for item in answers):
        raise BatchRefused


def _is_error(item: Any) -> bool:
    return isinstance(item, dict) and item.get("error") is not None


def _outcome(item: dict[str, Any]) -> Outcome:
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
    wish = _wish(error)
    if code == 429 or wish is not None or _BUSY.search(message):
        return RpcFault("the RPC endpoint limits our calls", code="rpc.limited", retry_after_seconds=wish)
    number = f" {code}" if type(code) is int else ""
    return CallRefused(f"the RPC endpoint answered with error{number}", block_range=_suggested(message))


def _is_revert(message: str) -> bool:
    if _REVERTED.search(message):
        return True
    return bool(_EXECUTION_FAILED.search(message)) and not _NODE_TROUBLE.search(message)


def _is_busy(fault: PermanentFault | RpcFault) -> bool:
    return fault.code == "rpc.limited"


def _message(error: Any) -> str:
    message = error.get("message") if isinstance(error, dict) else error
    return message[:2_000] if isinstance(message, str) else ""


def _wish(error: Any) -> float | None:
    """Return the seconds that Infura asks for inside of the error."""
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


def _nonsense(what: str) -> RpcFault:
    return RpcFault(f"the RPC endpoint {what}", code="rpc.nonsense")
