"""How the parameters of JSON-RPC requests are read; as strictly as geth reads them.

Quantities are hex without leading zeros, data is hex of whole bytes (Ethereum JSON-RPC specification, "Hex
value encoding").
"""

import re
from typing import Any

from iidq.embedded.development_chain.chain_ledger import Ledger
from iidq.embedded.development_chain.chain_records import Block
from iidq.embedded.development_chain.json_rpc import INVALID_PARAMS, SERVER_ERROR, RpcError

_QUANTITY = re.compile(r"0x(0|[1-9a-fA-F][0-9a-fA-F]{0,63})")
_DATA = re.compile(r"0x((?:[0-9a-fA-F]{2})*)")
_MAX_TOPICS = 4
_CALL_FIELDS = {
    "from", "to", "value", "data", "input", "gas", "gasPrice", "maxFeePerGas", "maxPriorityFeePerGas",
    "nonce", "type", "chainId", "accessList",
}  # fmt: skip


def read_quantity(value: Any, name: str) -> int:
    """A number in a request; raises -32602."""
    if not isinstance(value, str) or not (match := _QUANTITY.fullmatch(value)):
        raise RpcError(INVALID_PARAMS, f"invalid argument {name}: expected a hex quantity without leading zeros")
    return int(match[1], 16)


def read_data(value: Any, name: str, length: int | None = None) -> bytes:
    """Bytes in a request, of ``length`` if given; raises -32602."""
    if not isinstance(value, str) or not (match := _DATA.fullmatch(value)):
        raise RpcError(INVALID_PARAMS, f"invalid argument {name}: expected 0x and an even number of hex digits")
    if length is not None and len(match[1]) != 2 * length:
        raise RpcError(INVALID_PARAMS, f"invalid argument {name}: expected {length} bytes")
    return bytes.fromhex(match[1])


def read_address(value: Any, name: str = "address") -> bytes:
    """An address in a request; raises -32602."""
    return read_data(value, name, 20)


def read_hash(value: Any, name: str = "hash") -> bytes:
    """A block's or transaction's hash in a request; raises -32602."""
    return read_data(value, name, 32)


def read_block(value: Any, ledger: Ledger) -> Block | None:
    """The block that a tag, number or EIP-1898 object names; None if there is none yet.

    Every block is final at once here: ``latest``, ``safe`` and ``finalized`` are the same; ``pending`` as well,
    since a development chain holds nothing back that a read would want to see.
    """
    if isinstance(value, dict):
        if set(value) - {"requireCanonical"} == {"blockHash"}:
            return ledger.block_by_hash(read_hash(value["blockHash"], "blockHash"))
        if set(value) == {"blockNumber"}:
            return read_block(value["blockNumber"], ledger)
        raise RpcError(INVALID_PARAMS, "invalid argument block: expected either blockHash or blockNumber")
    if value is None or value in ("latest", "safe", "finalized", "pending"):
        return ledger.head
    return ledger.block_by_number(0 if value == "earliest" else read_quantity(value, "block"))


def read_state_block(value: Any, ledger: Ledger) -> Block:
    """The block whose state is to be read; raises geth's ``header not found``."""
    block = read_block(value, ledger)
    if block is None:
        raise RpcError(SERVER_ERROR, "header not found")
    return block


def read_call(transaction: Any) -> dict[str, Any]:
    """A call's fields by the names that :class:`Ledger` gives them; ``gas`` only if it is given. Raises -32602."""
    if not isinstance(transaction, dict):
        raise RpcError(INVALID_PARAMS, "invalid argument 0: expected an object")
    if unknown := set(transaction) - _CALL_FIELDS:
        raise RpcError(INVALID_PARAMS, f"invalid argument 0: unknown field {min(unknown)}")
    given = [read_data(transaction[name], name) for name in ("input", "data") if transaction.get(name) is not None]
    if len(set(given)) > 1:
        raise RpcError(INVALID_PARAMS, 'both "data" and "input" are set and not equal')
    sender, to, value, gas = (transaction.get(name) for name in ("from", "to", "value", "gas"))
    fields: dict[str, Any] = {
        "sender": bytes(20) if sender is None else read_address(sender, "from"),
        "to": None if to is None else read_address(to, "to"),
        "value": 0 if value is None else read_quantity(value, "value"),
        "data": given[0] if given else b"",
    }
    if gas is not None:
        fields["gas"] = read_quantity(gas, "gas")
    return fields


def read_addresses(value: Any) -> set[bytes] | None:
    """A log filter's ``address``: one, or any of several; None is every address. Raises -32602."""
    if value is None or value == []:
        return None
    return {read_address(item) for item in (value if isinstance(value, list) else [value])}


def read_topics(value: Any) -> list[set[bytes] | None]:
    """A log filter's ``topics`` by position: any of these, or None for every topic. Raises -32602."""
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > _MAX_TOPICS:
        raise RpcError(INVALID_PARAMS, f"invalid argument topics: expected a list of at most {_MAX_TOPICS}")
    return [
        None
        if choice is None or choice == [] or (isinstance(choice, list) and None in choice)
        else {read_hash(topic, "topic") for topic in (choice if isinstance(choice, list) else [choice])}
        for choice in value
    ]


def read_seconds(value: Any) -> int:
    """A time or a duration of the ``evm_`` methods, as a number or hex. Raises -32602."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise RpcError(INVALID_PARAMS, "invalid argument 0: expected seconds")
    seconds = value if isinstance(value, int) else read_quantity(value, "seconds")
    if not 0 <= seconds < 1 << 63:
        raise RpcError(INVALID_PARAMS, "invalid argument 0: expected seconds from 0 to 2^63")
    return seconds
