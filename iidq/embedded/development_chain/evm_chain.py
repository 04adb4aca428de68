"""A chain in memory: py-evm with Shanghai's rules, and the JSON-RPC methods of iidq's calls.

Every transaction is mined at once, into a separate block. Replies hold the fields for iidq, web3 and the tests;
quantities and data are in hex (Ethereum JSON-RPC specification). Use a single thread.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from eth.chains.base import MiningChain
from eth.consensus.applier import ConsensusApplier
from eth.consensus.noproof import NoProofConsensus
from eth.db.atomic import AtomicDB
from eth.exceptions import Revert, VMError
from eth.vm.forks.shanghai import ShanghaiVM
from eth.vm.spoof import SpoofTransaction
from eth_keys.datatypes import PrivateKey
from eth_utils.exceptions import ValidationError

Method = Callable[..., Any]
Form = dict[str, Any]
"""One block, transaction, receipt or event as JSON."""

_GAS_LIMIT = 30_000_000
_BALANCE_WEI = 10_000 * 10**18
_PRIORITY_FEE_WEI = 10**9
_CALL_STIPEND = 2300
_ERROR_STRING_SELECTOR = bytes.fromhex("08c379a0")
_SERVER_ERROR, _EXECUTION_REVERTED = -32000, 3


class RpcError(Exception):
    """The error object of a reply: ``code``, ``message`` and, if not None, ``data``."""

    def __init__(self, code: int, message: str, data: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


class EvmChain:
    """Blocks with transactions and events; ``methods`` reads and extends the chain."""

    def __init__(self, chain_id: int, private_keys: Sequence[str]) -> None:
        """Make the genesis block, in which the owner of each key (hex) has 10,000 ether."""
        self._chain_id = chain_id
        self._clock_ahead_seconds = 0
        rules = ConsensusApplier(NoProofConsensus).amend_vm_configuration(((0, ShanghaiVM),))
        chain_class: Any = type("PyEvmChain", (MiningChain,), {"chain_id": chain_id, "vm_configuration": rules})
        keys = [PrivateKey(bytes.fromhex(key.removeprefix("0x"))) for key in private_keys]
        account = {"balance": _BALANCE_WEI, "nonce": 0, "code": b"", "storage": {}}
        self._chain = chain_class.from_genesis(
            AtomicDB(),
            {"difficulty": 0, "gas_limit": _GAS_LIMIT, "timestamp": int(time.time()), "nonce": bytes(8)},
            {key.public_key.to_canonical_address(): account for key in keys},
        )
        self._headers: list[Any] = []
        self._blocks: list[Form] = []
        self._transactions: dict[str, Form] = {}
        self._receipts: dict[str, Form] = {}
        self._logs: list[Form] = []
        self._keep(self._chain.get_canonical_block_by_number(0))

    def methods(self) -> dict[str, Method]:
        """Return every JSON-RPC method by its name."""
        return {
            "eth_blockNumber": lambda: self._blocks[-1]["number"],
            "eth_call": self._call,
            "eth_chainId": lambda: hex(self._chain_id),
            "eth_estimateGas": self._estimate_gas,
            "eth_getBalance": self._balance,
            "eth_getBlockByHash": self._block_by_hash,
            "eth_getBlockByNumber": self._block_by_number,
            "eth_getCode": self._code,
            "eth_getLogs": self._matching_logs,
            "eth_getTransactionByHash": lambda tx_hash: self._transactions.get(tx_hash),
            "eth_getTransactionCount": self._transaction_count,
            "eth_getTransactionReceipt": lambda tx_hash: self._receipts.get(tx_hash),
            "eth_maxPriorityFeePerGas": lambda: hex(_PRIORITY_FEE_WEI),
            "eth_sendRawTransaction": self._send_raw_transaction,
            "evm_increaseTime": self._increase_time,
            "evm_mine": self._mine,
        }

    # Reading

    def _number(self, block: str) -> int:
        """Return the height that a tag or a hex number names; every block is final at once."""
        if block in ("latest", "safe", "finalized", "pending"):
            return len(self._blocks) - 1
        return 0 if block == "earliest" else int(block, 16)

    def _header(self, block: str) -> Any:
        number = self._number(block)
        if number >= len(self._headers):
            raise RpcError(_SERVER_ERROR, "header not found")
        return self._headers[number]

    def _state(self, block: str) -> Any:
        return self._chain.get_vm(self._header(block)).state

    def _block_by_number(self, block: str, _full: bool) -> Form | None:
        number = self._number(block)
        return self._blocks[number] if number < len(self._blocks) else None

    def _block_by_hash(self, block_hash: str, _full: bool) -> Form | None:
        return next((block for block in self._blocks if block["hash"] == block_hash), None)

    def _code(self, address: str, block: str = "latest") -> str:
        return _hex(self._state(block).get_code(_bytes(address)))

    def _balance(self, address: str, block: str = "latest") -> str:
        return hex(self._state(block).get_balance(_bytes(address)))

    def _transaction_count(self, address: str, block: str = "latest") -> str:
        return hex(self._state(block).get_nonce(_bytes(address)))

    def _matching_logs(self, criteria: Form) -> list[Form]:
        first, last = (self._number(criteria.get(name, "latest")) for name in ("fromBlock", "toBlock"))
        address, topics = criteria.get("address"), criteria.get("topics", [])
        return [
            log
            for log in self._logs
            if first <= int(log["blockNumber"], 16) <= last
            and (address is None or log["address"] == address.lower())
            and len(topics) <= len(log["topics"])
            and all(wanted in (None, topic) for wanted, topic in zip(topics, log["topics"], strict=False))
        ]

    # Running code without a transaction

    def _call(self, call: Form, block: str = "latest") -> str:
        return _hex(self._run(call, block).output)

    def _estimate_gas(self, call: Form, block: str = "latest") -> str:
        needed = _GAS_LIMIT - self._run(call | {"gas": hex(_GAS_LIMIT)}, block).get_gas_remaining()
        # Inner calls get 63/64 of the gas at most (EIP-150), and one with a value needs the stipend in hand.
        return hex(min((needed + _CALL_STIPEND) * 64 // 63, _GAS_LIMIT))

    def _run(self, call: Form, block: str) -> Any:
        header = self._header(block)
        try:
            with self._chain.get_vm(header).in_costless_state() as state:
                computation = state.apply_transaction(self._unsigned(call, header))
        except ValidationError as error:
            raise RpcError(_SERVER_ERROR, str(error)) from None
        if computation.is_error:
            raise _execution_error(computation.error)
        return computation

    def _unsigned(self, call: Form, header: Any) -> Any:
        sender = _bytes(call.get("from") or "0x" + "00" * 20)
        vm = self._chain.get_vm(header)
        unsigned = vm.get_transaction_builder().create_unsigned_transaction(
            nonce=vm.state.get_nonce(sender),
            gas_price=0,
            gas=min(int(call.get("gas", hex(_GAS_LIMIT)), 16), _GAS_LIMIT),
            to=_bytes(call.get("to") or "0x"),
            value=int(call.get("value", "0x0"), 16),
            data=_bytes(call.get("data") or call.get("input") or "0x"),
        )
        return SpoofTransaction(unsigned, from_=sender)

    # Mining

    def _send_raw_transaction(self, raw: str) -> str:
        builder = self._chain.get_vm(self._headers[-1]).get_transaction_builder()
        try:
            transaction = builder.decode(_bytes(raw))
            transaction.validate()
            sender = transaction.sender
        except Exception as error:
            raise RpcError(_SERVER_ERROR, f"invalid transaction: {error}") from None
        if transaction.chain_id != self._chain_id:
            raise RpcError(_SERVER_ERROR, f"invalid chain id for signer: {transaction.chain_id}")
        if transaction.nonce < self._state("latest").get_nonce(sender):
            raise RpcError(_SERVER_ERROR, "nonce too low")
        self._mine_block([transaction])
        return _hex(transaction.hash)

    def _increase_time(self, seconds: int) -> int:
        self._clock_ahead_seconds += seconds
        return self._clock_ahead_seconds

    def _mine(self) -> str:
        self._mine_block([])
        return "0x0"

    def _mine_block(self, transactions: list[Any]) -> None:
        head = self._headers[-1]
        # Each block is later than its parent, or py-evm would not accept it.
        timestamp = max(int(time.time()) + self._clock_ahead_seconds, head.timestamp + 1)
        self._chain.header = self._chain.create_header_from_parent(head, timestamp=timestamp, gas_limit=_GAS_LIMIT)
        try:
            imported, receipts, computations = self._chain.mine_all(transactions)
        except ValidationError as error:
            raise RpcError(_SERVER_ERROR, str(error)) from None
        block = imported.imported_block
        self._keep(block)
        for transaction, receipt, computation in zip(transactions, receipts, computations, strict=True):
            self._keep_transaction(block, transaction, receipt, computation)

    def _keep(self, block: Any) -> None:
        header = block.header
        self._headers.append(header)
        self._blocks.append(
            {
                "number": hex(header.block_number),
                "hash": _hex(header.hash),
                "parentHash": _hex(header.parent_hash),
                "timestamp": hex(header.timestamp),
                "baseFeePerGas": hex(header.base_fee_per_gas),
                "gasLimit": hex(header.gas_limit),
                "gasUsed": hex(header.gas_used),
                "transactions": [_hex(transaction.hash) for transaction in block.transactions],
            }
        )

    def _keep_transaction(self, block: Any, transaction: Any, receipt: Any, computation: Any) -> None:
        message = computation.msg
        place = {
            "blockHash": _hex(block.hash),
            "blockNumber": hex(block.number),
            "transactionHash": _hex(transaction.hash),
            "transactionIndex": "0x0",
        }
        parties = {
            "from": _hex(transaction.sender),
            "to": _hex(transaction.to) if transaction.to else None,
            "type": hex(getattr(transaction, "type_id", None) or 0),
        }
        logs = [
            {
                "address": _hex(log.address),
                "topics": [f"0x{topic:064x}" for topic in log.topics],
                "data": _hex(log.data),
                "logIndex": hex(index),
                "removed": False,
                **place,
            }
            for index, log in enumerate(receipt.logs)
        ]
        self._logs += logs
        self._transactions[place["transactionHash"]] = {
            "hash": place["transactionHash"],
            "chainId": hex(self._chain_id),
            "nonce": hex(transaction.nonce),
            "input": _hex(transaction.data),
            "value": hex(transaction.value),
            **place,
            **parties,
        }
        tip = min(transaction.max_priority_fee_per_gas, transaction.max_fee_per_gas - block.header.base_fee_per_gas)
        self._receipts[place["transactionHash"]] = {
            "contractAddress": _hex(message.storage_address) if message.is_create else None,
            "cumulativeGasUsed": hex(receipt.gas_used),
            "effectiveGasPrice": hex(block.header.base_fee_per_gas + tip),
            "gasUsed": hex(receipt.gas_used),
            "logs": logs,
            "status": hex(int(receipt.state_root == b"\x01")),
            **place,
            **parties,
        }


def _hex(value: bytes) -> str:
    return "0x" + value.hex()


def _bytes(value: str) -> bytes:
    if not value.startswith("0x"):
        raise ValueError(f"expected 0x and hex digits, got {value}")
    return bytes.fromhex(value[2:])


def _execution_error(error: VMError) -> RpcError:
    if not isinstance(error, Revert):
        return RpcError(_SERVER_ERROR, f"vm execution error: {str(error) or type(error).__name__}")
    output: bytes = error.args[0] if error.args else b""
    reason = ""
    if output[:4] == _ERROR_STRING_SELECTOR:  # Solidity's Error(string)
        length = int.from_bytes(output[36:68])
        reason = ": " + output[68 : 68 + length].decode(errors="replace")
    return RpcError(_EXECUTION_REVERTED, "execution reverted" + reason, _hex(output))
