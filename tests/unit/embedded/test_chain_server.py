"""The JSON-RPC envelope, without a chain."""

import json
from typing import Any

import pytest

from iidq.embedded.development_chain.chain_server import answer
from iidq.embedded.development_chain.evm_chain import Method, RpcError


def add(left: int, right: int = 1) -> int:
    return left + right


def refuse() -> None:
    raise RpcError(3, "execution reverted", "0x01")


def break_down() -> None:
    raise RuntimeError("secret detail")


METHODS: dict[str, Method] = {"add": add, "refuse": refuse, "break": break_down}


def reply(request: Any) -> Any:
    return json.loads(answer(json.dumps(request).encode(), METHODS))


def call(method: str, *params: Any, call_id: Any = 7) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": call_id, "method": method, "params": list(params)}


@pytest.mark.parametrize("call_id", [0, 7, "seven", None, 1.5])
def test_a_result_comes_back_under_the_calls_id(call_id: Any) -> None:
    """Any id allowed by the specification is echoed unchanged."""
    assert reply(call("add", 1, 2, call_id=call_id)) == {"jsonrpc": "2.0", "id": call_id, "result": 3}


def test_a_batch_is_answered_in_order_with_its_errors_in_place() -> None:
    """A batch is answered in order, and a failed call leaves the others unharmed."""
    replies = reply([call("add", 1, call_id=1), call("nope", call_id=2), 5, call("add", 2, call_id=3)])
    assert [(item["id"], item.get("result"), item.get("error", {}).get("code")) for item in replies] == [
        (1, 2, None),
        (2, None, -32601),
        (None, None, -32600),
        (3, 3, None),
    ]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"\xff", -32700),
        (b"1", -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":5}', -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"nope"}', -32601),
        (b'{"jsonrpc":"2.0","id":1,"method":"add"}', -32602),
        (b'{"jsonrpc":"2.0","id":1,"method":"add","params":[1,2,3]}', -32602),
    ],
)
def test_a_bad_request_gets_the_specified_code(body: bytes, code: int) -> None:
    """Each kind of bad request has its own code."""
    assert json.loads(answer(body, METHODS))["error"]["code"] == code


def test_an_error_carries_its_data() -> None:
    """An error of a method is answered with its data."""
    assert reply(call("refuse"))["error"] == {"code": 3, "message": "execution reverted", "data": "0x01"}


def test_an_unexpected_error_costs_no_other_call_its_reply(caplog: pytest.LogCaptureFixture) -> None:
    """The call gets -32603 without details, which go to the log; the other calls of the batch get results."""
    broken, added = reply([call("break"), call("add", 1)])
    assert broken["error"] == {"code": -32603, "message": "internal error"}
    assert added["result"] == 2
    assert "secret detail" in caplog.text
