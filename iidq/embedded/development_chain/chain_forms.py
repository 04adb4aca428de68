"""How blocks, transactions, receipts and events look in JSON-RPC replies, as geth shows them.

Quantities are hex without leading zeros, data is hex of whole bytes (Ethereum JSON-RPC specification, "Hex
value encoding").
"""

from typing import Any

from iidq.embedded.development_chain.chain_records import Block, IncludedTransaction, LogEntry


def quantity(value: int) -> str:
    """A number in a reply."""
    return hex(value)


def data(value: bytes) -> str:
    """Bytes in a reply."""
    return "0x" + value.hex()


def block_form(block: Block, *, full_transactions: bool) -> dict[str, Any]:
    """A block, with its transactions' hashes or the transactions themselves."""
    header = block.header
    return {
        "baseFeePerGas": quantity(header.base_fee_per_gas),
        "difficulty": quantity(header.difficulty),
        "extraData": data(header.extra_data),
        "gasLimit": quantity(header.gas_limit),
        "gasUsed": quantity(header.gas_used),
        "hash": data(block.hash),
        "logsBloom": data(header.bloom.to_bytes(256, "big")),
        "miner": data(header.coinbase),
        "mixHash": data(header.mix_hash),
        "nonce": data(header.nonce),
        "number": quantity(block.number),
        "parentHash": data(header.parent_hash),
        "receiptsRoot": data(header.receipt_root),
        "sha3Uncles": data(header.uncles_hash),
        "size": quantity(block.size),
        "stateRoot": data(header.state_root),
        "timestamp": quantity(block.timestamp),
        "transactions": [
            transaction_form(included.transaction, included) if full_transactions else data(included.hash)
            for included in block.transactions
        ],
        "transactionsRoot": data(header.transaction_root),
        "uncles": [],
        "withdrawals": [],
        "withdrawalsRoot": data(header.withdrawals_root),
    }


def transaction_form(transaction: Any, included: IncludedTransaction | None) -> dict[str, Any]:
    """A transaction; one that waits for its block has no place yet."""
    kind = getattr(transaction, "type_id", None) or 0
    form: dict[str, Any] = {
        "blockHash": data(included.block_hash) if included else None,
        "blockNumber": quantity(included.block_number) if included else None,
        "from": data(transaction.sender),
        "gas": quantity(transaction.gas),
        "hash": data(transaction.hash),
        "input": data(transaction.data),
        "nonce": quantity(transaction.nonce),
        "to": data(transaction.to) if transaction.to else None,
        "transactionIndex": quantity(included.index) if included else None,
        "value": quantity(transaction.value),
        "type": quantity(kind),
        "v": quantity(transaction.y_parity if kind else transaction.v),
        "r": quantity(transaction.r),
        "s": quantity(transaction.s),
    }
    if kind == 2:
        form["maxFeePerGas"] = quantity(transaction.max_fee_per_gas)
        form["maxPriorityFeePerGas"] = quantity(transaction.max_priority_fee_per_gas)
        form["gasPrice"] = quantity(included.effective_gas_price if included else transaction.max_fee_per_gas)
    else:
        form["gasPrice"] = quantity(transaction.gas_price)
    if kind:
        form["yParity"] = form["v"]
        form["accessList"] = [
            {"address": data(address), "storageKeys": [data(slot.to_bytes(32, "big")) for slot in slots]}
            for address, slots in transaction.access_list
        ]
    if transaction.chain_id is not None:
        form["chainId"] = quantity(transaction.chain_id)
    return form


def receipt_form(included: IncludedTransaction) -> dict[str, Any]:
    """What became of a transaction."""
    return {
        "blockHash": data(included.block_hash),
        "blockNumber": quantity(included.block_number),
        "contractAddress": data(included.contract_address) if included.contract_address else None,
        "cumulativeGasUsed": quantity(included.receipt.gas_used),
        "effectiveGasPrice": quantity(included.effective_gas_price),
        "from": data(included.transaction.sender),
        "gasUsed": quantity(included.gas_used),
        "logs": [log_form(entry) for entry in included.logs],
        "logsBloom": data(included.receipt.bloom.to_bytes(256, "big")),
        "status": quantity(int(included.succeeded)),
        "to": data(included.transaction.to) if included.transaction.to else None,
        "transactionHash": data(included.hash),
        "transactionIndex": quantity(included.index),
        "type": quantity(getattr(included.transaction, "type_id", None) or 0),
    }


def log_form(entry: LogEntry) -> dict[str, Any]:
    """One event."""
    return {
        "address": data(entry.address),
        "topics": [data(topic) for topic in entry.topics],
        "data": data(entry.data),
        "blockNumber": quantity(entry.block_number),
        "transactionHash": data(entry.transaction_hash),
        "transactionIndex": quantity(entry.transaction_index),
        "blockHash": data(entry.block_hash),
        "blockTimestamp": quantity(entry.block_timestamp),
        "logIndex": quantity(entry.index),
        "removed": False,
    }
