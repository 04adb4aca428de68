"""JSON-RPC bodies, and the meaning of errors."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iidq.errors import RpcFault
from iidq.provenance.ethereum.jsonrpc import BatchRefused, CallRefused, CallReverted, Request, decode, encode

NOISE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["id", "result", "error", "message"]), inner),
)

JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
)


def answer(id_: Any, **members: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id_, **members}


def outcome_of(error: Any) -> Any:
    return decode(json.dumps(answer(1, error=error)).encode(), [1])[1]


def test_one_call_is_an_object_and_several_are_an_array() -> None:
    """A single call goes out unbatched, for endpoints without batches."""
    one, two = Request("a", "[]"), Request("b", "[1]")
    assert json.loads(encode({7: one})) == {"jsonrpc": "2.0", "id": 7, "method": "a", "params": []}
    assert [call["id"] for call in json.loads(encode({7: one, 8: two}))] == [7, 8]


def test_answers_are_matched_by_id_in_any_order() -> None:
    """A batch's answers may come in any order."""
    body = json.dumps([answer(2, result="two"), answer(1, result="one")]).encode()
    assert decode(body, [1, 2]) == {1: "one", 2: "two"}


@pytest.mark.parametrize(
    "answers",
    [
        [answer(1, result="one")],
        [answer(1, result="one"), answer("2", result="two")],
        [answer(1, result="one"), answer(True, result="two")],
        [answer(1, result="one"), answer(9, result="two")],
        [answer(1, result="one"), None, 5, "x"],
        [answer(1, result="one"), answer(2, result="a"), answer(2, result="b")],
        [answer(1, result="one"), {"jsonrpc": "2.0", "id": 2}],
    ],
)
def test_a_partial_batch_fails_only_the_calls_it_leaves_out(answers: list[Any]) -> None:
    """A missing, doubled or mismatched answer is a temporary fault of its call; the others keep the results."""
    outcomes = decode(json.dumps(answers).encode(), [1, 2])
    assert outcomes[1] == "one"
    assert isinstance(outcomes[2], RpcFault)
    assert outcomes[2].code == "rpc.nonsense"


@pytest.mark.parametrize("body", [b"", b"<html>", b"{", b"\xff", b"[" * 100_000, b"NaN", "{}".encode("utf-16")])
def test_what_is_not_json_is_a_temporary_fault(body: bytes) -> None:
    """HTML, nothing, or half an answer is a temporary fault of the endpoint, not of the job."""
    with pytest.raises(RpcFault) as caught:
        decode(body, [1])
    assert caught.value.code == "rpc.not_json"


def test_a_null_result_is_a_result() -> None:
    """A null for a missing block is a result, not a fault of the protocol."""
    assert decode(json.dumps(answer(1, result=None)).encode(), [1]) == {1: None}


@pytest.mark.parametrize(
    "error",
    [
        {"code": 3, "message": "execution reverted: rate limit", "data": "0x"},
        {"code": -32000, "message": "execution reverted"},
        {"code": -32015, "message": "VM execution error."},
        {"code": -32603, "message": "EVM error: InvalidOpcode, invalid opcode: INVALID"},
        {"code": -32000, "message": "out of gas"},
        {"code": -32000, "message": "execution reverted: upstream oracle timed out"},
    ],
)
def test_a_contracts_refusal_is_permanent(error: Any) -> None:
    """A revert, in the words of any node, is the contract's answer."""
    outcome = outcome_of(error)
    assert isinstance(outcome, CallReverted)
    assert not outcome.temporary


@pytest.mark.parametrize(
    "error",
    [
        {"code": -32005, "message": "daily request count exceeded, request rate limited"},
        {"code": 429, "message": "Your app has exceeded its compute units per second capacity"},
        {"code": -32016, "message": "over rate limit"},
        {"code": -32097, "message": "Too Many Requests"},
    ],
)
def test_limits_are_temporary(error: Any) -> None:
    """A rate limit is a temporary fault with a code, and the endpoint's text goes no further."""
    outcome = outcome_of(error)
    assert isinstance(outcome, RpcFault)
    assert outcome.code == "rpc.limited"
    assert error["message"] not in outcome.message


@pytest.mark.parametrize(
    "message",
    [
        "EVM error: database error: upstream timed out",
        "vm execution aborted: context deadline exceeded (timeout = 5s)",
        "EVM error: missing trie node 0x12",
    ],
)
def test_a_nodes_own_trouble_is_no_refusal_by_the_contract(message: str) -> None:
    """A node that could not run the contract to the end has no answer of the contract."""
    outcome = outcome_of({"code": -32603, "message": message})
    assert isinstance(outcome, RpcFault)


@pytest.mark.parametrize(
    ("message", "block_range"),
    [
        ("header not found", None),
        ("query returned more than 10000 results", None),
        ("query returned more than 10000 results. Try with this block range [0x10, 0x1F].", (0x10, 0x1F)),
        ("this block range should work: [0x0, 0x7d0]", (0, 0x7D0)),
        ("[0x9, 0x1]", None),
        (5, None),
    ],
)
def test_other_errors_are_the_endpoints(message: Any, block_range: Any) -> None:
    """Any other error is a temporary refusal with the suggested range of blocks."""
    outcome = outcome_of({"code": -32000, "message": message})
    assert isinstance(outcome, CallRefused)
    assert outcome.temporary
    assert outcome.block_range == block_range


@pytest.mark.parametrize(
    "body",
    [
        answer(None, error={"code": -32600, "message": "Invalid request"}),
        [answer(1, error={"code": -1, "message": "batch too large"}), answer(2, error={"message": "no batches"})],
    ],
)
def test_one_error_for_a_whole_batch_refuses_batching(body: Any) -> None:
    """Every form of a refused batch is recognised."""
    with pytest.raises(BatchRefused):
        decode(json.dumps(body).encode(), [1, 2])


def test_a_limit_on_a_whole_batch_is_no_refusal_of_batching() -> None:
    """A rate limit on a whole batch stays a limit: single calls would make more requests."""
    with pytest.raises(RpcFault) as caught:
        decode(json.dumps(answer(None, error={"code": 429, "message": "slow down"})).encode(), [1, 2])
    assert caught.value.code == "rpc.limited"


@given(JSON_VALUES, st.booleans())
def test_a_result_is_read_as_python_reads_it(value: Any, ascii_only: bool) -> None:
    """Every JSON value is read as by the standard library, to the last digit."""
    body = json.dumps(answer(1, result=value), ensure_ascii=ascii_only).encode()
    assert json.dumps(decode(body, [1])[1]) == json.dumps(json.loads(body)["result"])


@given(NOISE, st.lists(st.integers(1, 5), min_size=1, max_size=3, unique=True))
def test_every_call_gets_an_outcome_from_any_json(value: Any, ids: list[int]) -> None:
    """Any JSON gives each call an outcome, or the whole body a single fault."""
    try:
        assert list(decode(json.dumps(value).encode(), ids)) == ids
    except (RpcFault, BatchRefused):
        return
