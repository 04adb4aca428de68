"""The Ethereum JSON-RPC methods of the development chain, answered as geth answers them."""

from collections.abc import Callable
from typing import Any

from eth.exceptions import InsufficientFunds, InvalidInstruction, OutOfGas, Revert, VMError
from eth_utils.exceptions import ValidationError

from iidq.embedded.development_chain.chain_forms import (
    block_form,
    data,
    log_form,
    quantity,
    receipt_form,
    transaction_form,
)
from iidq.embedded.development_chain.chain_ledger import GAS_LIMIT, Ledger, TransactionRejected
from iidq.embedded.development_chain.chain_parameters import (
    read_address,
    read_addresses,
    read_block,
    read_call,
    read_data,
    read_hash,
    read_quantity,
    read_seconds,
    read_state_block,
    read_topics,
)
from iidq.embedded.development_chain.chain_records import Block, LogEntry
from iidq.embedded.development_chain.json_rpc import EXECUTION_REVERTED, INVALID_PARAMS, SERVER_ERROR, Method, RpcError

_CLIENT_VERSION = "iidq-development-chain"
_ERROR_STRING_SELECTOR = bytes.fromhex("08c379a0")
_MAX_FEE_HISTORY_BLOCKS = 1024
_MAX_MINED_BLOCKS = 100_000


def ethereum_methods(ledger: Ledger) -> dict[str, Method]:
    """Every method by its name, bound to this ledger."""
    methods = _Methods(ledger)
    return {
        "eth_accounts": lambda: [data(address) for address in ledger.accounts],
        "eth_blockNumber": lambda: quantity(ledger.head.number),
        "eth_call": methods.call,
        "eth_chainId": lambda: quantity(ledger.chain_id),
        "eth_estimateGas": methods.estimate_gas,
        "eth_feeHistory": methods.fee_history,
        "eth_gasPrice": lambda: quantity(ledger.next_base_fee(ledger.head) + ledger.suggested_priority_fee()),
        "eth_getBalance": methods.balance,
        "eth_getBlockByHash": methods.block_by_hash,
        "eth_getBlockByNumber": methods.block_by_number,
        "eth_getCode": methods.code,
        "eth_getLogs": methods.logs,
        "eth_getStorageAt": methods.storage_at,
        "eth_getTransactionByHash": methods.transaction_by_hash,
        "eth_getTransactionCount": methods.transaction_count,
        "eth_getTransactionReceipt": methods.transaction_receipt,
        "eth_maxPriorityFeePerGas": lambda: quantity(ledger.suggested_priority_fee()),
        "eth_sendRawTransaction": methods.send_raw_transaction,
        "eth_sendTransaction": methods.send_transaction,
        "eth_syncing": lambda: False,
        "evm_increaseTime": methods.increase_time,
        "evm_mine": methods.mine,
        "evm_setAutomine": methods.set_automine,
        "evm_setNextBlockTimestamp": methods.set_next_block_timestamp,
        "net_listening": lambda: True,
        "net_version": lambda: str(ledger.chain_id),
        "web3_clientVersion": lambda: _CLIENT_VERSION,
    }


class _Methods:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    # Accounts and contracts

    def balance(self, address: Any, block: Any = "latest") -> str:
        owner = read_address(address)
        return quantity(self._state(block).get_balance(owner))

    def code(self, address: Any, block: Any = "latest") -> str:
        owner = read_address(address)
        return data(self._state(block).get_code(owner))

    def storage_at(self, address: Any, slot: Any, block: Any = "latest") -> str:
        owner = read_address(address)
        place = int.from_bytes(read_data(slot, "slot", 32)) if len(str(slot)) == 66 else read_quantity(slot, "slot")
        return data(self._state(block).get_storage(owner, place).to_bytes(32, "big"))

    def transaction_count(self, address: Any, block: Any = "latest") -> str:
        owner = read_address(address)
        if block == "pending":
            return quantity(self._ledger.next_nonce(owner))
        return quantity(self._state(block).get_nonce(owner))

    def call(self, transaction: Any, block: Any = "latest") -> str:
        fields = read_call(transaction)
        gas = min(fields.pop("gas", GAS_LIMIT), GAS_LIMIT)
        computation = _evm(lambda: self._ledger.call(read_state_block(block, self._ledger), gas=gas, **fields))
        if computation.is_error:
            raise _execution_error(computation.error, computation.output)
        return data(computation.output)

    def estimate_gas(self, transaction: Any, block: Any = "latest") -> str:
        fields = read_call(transaction)
        fields.pop("gas", None)
        return quantity(_evm(lambda: self._ledger.estimate_gas(read_state_block(block, self._ledger), **fields)))

    def _state(self, block: Any) -> Any:
        return self._ledger.state_at(read_state_block(block, self._ledger))

    # Blocks, transactions, events

    def block_by_number(self, number: Any, full_transactions: Any) -> dict[str, Any] | None:
        return _form(read_block(number, self._ledger), full_transactions)

    def block_by_hash(self, block_hash: Any, full_transactions: Any) -> dict[str, Any] | None:
        return _form(self._ledger.block_by_hash(read_hash(block_hash)), full_transactions)

    def transaction_by_hash(self, transaction_hash: Any) -> dict[str, Any] | None:
        wanted = read_hash(transaction_hash)
        if included := self._ledger.transaction(wanted):
            return transaction_form(included.transaction, included)
        waiting = (transaction for transaction in self._ledger.pending if transaction.hash == wanted)
        return next((transaction_form(transaction, None) for transaction in waiting), None)

    def transaction_receipt(self, transaction_hash: Any) -> dict[str, Any] | None:
        included = self._ledger.transaction(read_hash(transaction_hash))
        return receipt_form(included) if included else None

    def logs(self, criteria: Any) -> list[dict[str, Any]]:
        if not isinstance(criteria, dict):
            raise RpcError(INVALID_PARAMS, "invalid argument 0: expected an object")
        first, last = self._range(criteria)
        addresses = read_addresses(criteria.get("address"))
        topics = read_topics(criteria.get("topics"))
        return [log_form(entry) for entry in self._ledger.logs(first, last) if _matches(entry, addresses, topics)]

    def _range(self, criteria: dict[str, Any]) -> tuple[int, int]:
        if criteria.get("blockHash") is not None:
            if criteria.get("fromBlock") is not None or criteria.get("toBlock") is not None:
                raise RpcError(INVALID_PARAMS, "cannot specify both blockHash and fromBlock/toBlock, choose one")
            block = self._ledger.block_by_hash(read_hash(criteria["blockHash"], "blockHash"))
            if block is None:
                raise RpcError(SERVER_ERROR, "unknown block")
            return block.number, block.number
        first = self._number(criteria.get("fromBlock"))
        last = self._number(criteria.get("toBlock"))
        if first > last:
            raise RpcError(INVALID_PARAMS, "invalid block range params")
        return first, last

    def _number(self, value: Any) -> int:
        if isinstance(value, str) and value.startswith("0x"):
            return read_quantity(value, "block")
        return read_state_block(value, self._ledger).number

    # Fees

    def fee_history(self, count: Any, newest: Any, percentiles: Any = None) -> dict[str, Any]:
        wanted = count if isinstance(count, int) else read_quantity(count, "blockCount")
        last = read_state_block(newest, self._ledger)
        first = max(0, last.number - min(wanted, _MAX_FEE_HISTORY_BLOCKS) + 1)
        blocks = [block for n in range(first, last.number + 1) if (block := self._ledger.block_by_number(n))]
        history: dict[str, Any] = {
            "oldestBlock": quantity(first),
            "baseFeePerGas": [
                *(quantity(block.header.base_fee_per_gas) for block in blocks),
                quantity(self._ledger.next_base_fee(last)),
            ],
            "gasUsedRatio": [block.header.gas_used / block.header.gas_limit for block in blocks],
        }
        if percentiles:
            if not isinstance(percentiles, list) or not all(isinstance(p, int | float) for p in percentiles):
                raise RpcError(INVALID_PARAMS, "invalid argument rewardPercentiles: expected a list of numbers")
            history["reward"] = [[quantity(_tip_at(block, p)) for p in percentiles] for block in blocks]
        return history

    # Sending

    def send_raw_transaction(self, raw: Any) -> str:
        return self._submit(lambda: self._ledger.decode(read_data(raw, "transaction")))

    def send_transaction(self, transaction: Any) -> str:
        fields = read_call(transaction)
        sender = fields["sender"]
        if "from" not in transaction:
            raise RpcError(INVALID_PARAMS, "missing from")
        gas = fields.pop("gas", None)
        if gas is None:
            gas = _evm(lambda: self._ledger.estimate_gas(self._ledger.head, **fields))
        nonce = (
            read_quantity(transaction["nonce"], "nonce") if "nonce" in transaction else self._ledger.next_nonce(sender)
        )
        signed = {
            "nonce": nonce,
            "gas": gas,
            "to": fields["to"] or b"",
            "value": fields["value"],
            "data": fields["data"],
        }
        if "gasPrice" in transaction:
            signed["gas_price"] = read_quantity(transaction["gasPrice"], "gasPrice")
        else:
            tip = transaction.get("maxPriorityFeePerGas")
            most = transaction.get("maxFeePerGas")
            priority_fee = (
                self._ledger.suggested_priority_fee() if tip is None else read_quantity(tip, "maxPriorityFeePerGas")
            )
            signed["max_priority_fee_per_gas"] = priority_fee
            signed["max_fee_per_gas"] = (
                2 * self._ledger.next_base_fee(self._ledger.head) + priority_fee
                if most is None
                else read_quantity(most, "maxFeePerGas")
            )
        return self._submit(lambda: self._ledger.sign(sender, **signed))

    def _submit(self, transaction: Callable[[], Any]) -> str:
        try:
            return data(self._ledger.submit(transaction()))
        except TransactionRejected as error:
            raise RpcError(SERVER_ERROR, str(error)) from None

    # Time and mining

    def mine(self, options: Any = None) -> str:
        count, timestamp = 1, options
        if isinstance(options, dict):
            count, timestamp = options.get("blocks", 1), options.get("timestamp")
        if not isinstance(count, int) or not 0 <= count <= _MAX_MINED_BLOCKS:
            raise RpcError(INVALID_PARAMS, f"invalid argument blocks: expected a number from 0 to {_MAX_MINED_BLOCKS}")
        if timestamp is not None:
            self.set_next_block_timestamp(timestamp)
        for _ in range(count):
            self._ledger.mine()
        return "0x0"

    def set_automine(self, enabled: Any) -> bool:
        if not isinstance(enabled, bool):
            raise RpcError(INVALID_PARAMS, "invalid argument 0: expected true or false")
        self._ledger.automine = enabled
        if enabled and self._ledger.pending:
            self._ledger.mine()
        return True

    def set_next_block_timestamp(self, timestamp: Any) -> None:
        try:
            self._ledger.set_next_timestamp(read_seconds(timestamp))
        except ValueError as error:
            raise RpcError(INVALID_PARAMS, str(error)) from None

    def increase_time(self, seconds: Any) -> int:
        return self._ledger.advance_clock(read_seconds(seconds))


def _form(block: Block | None, full_transactions: Any) -> dict[str, Any] | None:
    if not isinstance(full_transactions, bool):
        raise RpcError(INVALID_PARAMS, "invalid argument 1: expected true or false")
    return None if block is None else block_form(block, full_transactions=full_transactions)


def _evm(run: Callable[[], Any]) -> Any:
    try:
        return run()
    except VMError as error:
        raise _execution_error(error, error.args[0] if isinstance(error, Revert) and error.args else b"") from None
    except ValidationError as error:
        raise RpcError(SERVER_ERROR, str(error)) from None


def _execution_error(error: VMError, output: bytes) -> RpcError:
    match error:
        case Revert():
            reason = _revert_reason(output)
            return RpcError(EXECUTION_REVERTED, "execution reverted" + (f": {reason}" if reason else ""), data(output))
        case OutOfGas():
            return RpcError(SERVER_ERROR, "out of gas")
        case InsufficientFunds():
            return RpcError(SERVER_ERROR, "insufficient funds for transfer")
        case InvalidInstruction():
            return RpcError(SERVER_ERROR, "invalid opcode")
    return RpcError(SERVER_ERROR, str(error) or type(error).__name__)


def _revert_reason(output: bytes) -> str | None:
    """The text of Solidity's ``Error(string)``, if that is what was thrown."""
    if output[:4] != _ERROR_STRING_SELECTOR or len(output) < 68:
        return None
    length = int.from_bytes(output[36:68], "big")
    return output[68 : 68 + length].decode(errors="replace")


def _matches(entry: LogEntry, addresses: set[bytes] | None, topics: list[set[bytes] | None]) -> bool:
    if addresses is not None and entry.address not in addresses:
        return False
    return len(topics) <= len(entry.topics) and all(
        choices is None or topic in choices for choices, topic in zip(topics, entry.topics, strict=False)
    )


def _tip_at(block: Block, percentile: float) -> int:
    base_fee = int(block.header.base_fee_per_gas)
    tips = sorted((item.effective_gas_price - base_fee, item.gas_used) for item in block.transactions)
    threshold = block.header.gas_used * percentile / 100
    total = 0
    for tip, gas_used in tips:
        total += gas_used
        if total >= threshold:
            return tip
    return 0
