"""What the development chain keeps of its past: blocks, transactions in their place, events."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One event, with its place; ``index`` counts within the block."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes
    block_number: int
    block_hash: bytes
    block_timestamp: int
    transaction_hash: bytes
    transaction_index: int
    index: int


@dataclass(frozen=True, slots=True)
class IncludedTransaction:
    """A transaction that is in a block, and what became of it."""

    transaction: Any
    hash: bytes
    block_number: int
    block_hash: bytes
    index: int
    receipt: Any
    gas_used: int
    effective_gas_price: int
    contract_address: bytes | None
    logs: tuple[LogEntry, ...]

    @property
    def succeeded(self) -> bool:
        """Whether it ran to its end, rather than reverting or running out of gas."""
        return bool(self.receipt.state_root == b"\x01")


@dataclass(frozen=True, slots=True)
class Block:
    """A mined block."""

    header: Any
    hash: bytes
    size: int
    transactions: tuple[IncludedTransaction, ...]

    @property
    def number(self) -> int:
        """Its height."""
        return int(self.header.block_number)

    @property
    def timestamp(self) -> int:
        """Unix seconds."""
        return int(self.header.timestamp)


def included_transactions(
    mined: Any,
    transactions: Sequence[Any],
    receipts: Sequence[Any],
    contracts: Sequence[bytes | None],
) -> tuple[IncludedTransaction, ...]:
    """Give each transaction of a finished py-evm block its place, its share of the gas, and its numbered events."""
    result = []
    gas_before = log_index = 0
    for index, (transaction, receipt, contract) in enumerate(zip(transactions, receipts, contracts, strict=True)):
        logs = tuple(
            LogEntry(
                address=bytes(log.address),
                topics=tuple(topic.to_bytes(32, "big") for topic in log.topics),
                data=bytes(log.data),
                block_number=mined.number,
                block_hash=mined.hash,
                block_timestamp=mined.header.timestamp,
                transaction_hash=bytes(transaction.hash),
                transaction_index=index,
                index=log_index + place,
            )
            for place, log in enumerate(receipt.logs)
        )
        result.append(
            IncludedTransaction(
                transaction=transaction,
                hash=bytes(transaction.hash),
                block_number=mined.number,
                block_hash=mined.hash,
                index=index,
                receipt=receipt,
                gas_used=receipt.gas_used - gas_before,
                effective_gas_price=min(
                    transaction.max_fee_per_gas, mined.header.base_fee_per_gas + transaction.max_priority_fee_per_gas
                ),
                contract_address=contract,
                logs=logs,
            )
        )
        gas_before = receipt.gas_used
        log_index += len(logs)
    return tuple(result)
