"""The development chain itself: py-evm's Shanghai rules, blocks kept in memory, a clock that tests can set.

A block is mined for each transaction as it comes in (:attr:`Ledger.automine`). Blocks may share a second, as they do
on rollups. Nothing here knows about JSON; nothing is safe to be called from two threads at once.
"""

import bisect
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from eth.chains.base import MiningChain
from eth.consensus.applier import ConsensusApplier
from eth.consensus.noproof import NoProofConsensus
from eth.db.atomic import AtomicDB
from eth.vm.forks.shanghai import ShanghaiVM
from eth.vm.message import Message
from eth.vm.spoof import SpoofTransaction
from eth_keys.datatypes import PrivateKey
from eth_typing import Address
from eth_utils.crypto import keccak
from eth_utils.exceptions import ValidationError
from rlp import encode as rlp_encode  # type: ignore[import-untyped]

from iidq.embedded.development_chain.chain_records import Block, IncludedTransaction, LogEntry, included_transactions

GAS_LIMIT = 30_000_000
ACCOUNT_BALANCE_WEI = 10_000 * 10**18
_PRIORITY_FEE_WEI = 10**9
_CALL_STIPEND = 2300


class TransactionRejected(Exception):
    """The transaction cannot go into a block; the message is geth's where geth has one."""


class Ledger:
    """Blocks, state and the transactions that wait."""

    def __init__(
        self,
        chain_id: int,
        private_keys: Sequence[str],
        *,
        genesis_timestamp: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Make the genesis block; each of ``private_keys`` (hex) owns 10,000 ether and may send unlocked."""
        self.chain_id = chain_id
        self.automine = True
        self.pending: list[Any] = []
        self._clock = clock
        self._clock_offset_seconds = 0 if genesis_timestamp is None else genesis_timestamp - int(clock())
        self._next_timestamp: int | None = None
        self._keys = {
            key.public_key.to_canonical_address(): key
            for key in (PrivateKey(bytes.fromhex(text.removeprefix("0x"))) for text in private_keys)
        }
        rules = ConsensusApplier(NoProofConsensus).amend_vm_configuration(((0, ShanghaiVM),))
        chain_class: Any = type("DevelopmentChain", (MiningChain,), {"chain_id": chain_id, "vm_configuration": rules})
        self._chain = chain_class.from_genesis(
            AtomicDB(),
            {"difficulty": 0, "gas_limit": GAS_LIMIT, "timestamp": self.now(), "nonce": bytes(8), "extra_data": b""},
            {
                address: {"balance": ACCOUNT_BALANCE_WEI, "nonce": 0, "code": b"", "storage": {}}
                for address in self._keys
            },
        )
        genesis = self._chain.get_canonical_block_by_number(0)
        self._blocks = [Block(genesis.header, genesis.hash, len(rlp_encode(genesis)), ())]
        self._numbers_by_hash = {genesis.hash: 0}
        self._transactions: dict[bytes, IncludedTransaction] = {}
        self._logs: list[LogEntry] = []

    @property
    def accounts(self) -> list[bytes]:
        """Addresses of the unlocked accounts."""
        return list(self._keys)

    @property
    def head(self) -> Block:
        """The newest block."""
        return self._blocks[-1]

    def block_by_number(self, number: int) -> Block | None:
        """The block of this height, if it is there yet."""
        return self._blocks[number] if number < len(self._blocks) else None

    def block_by_hash(self, block_hash: bytes) -> Block | None:
        """The block with this hash."""
        number = self._numbers_by_hash.get(block_hash)
        return None if number is None else self._blocks[number]

    def transaction(self, transaction_hash: bytes) -> IncludedTransaction | None:
        """The mined transaction with this hash."""
        return self._transactions.get(transaction_hash)

    def logs(self, first_block: int, last_block: int) -> Iterable[LogEntry]:
        """All events from ``first_block`` to ``last_block``, both included, oldest first."""
        start = bisect.bisect_left(self._logs, first_block, key=lambda entry: entry.block_number)
        stop = bisect.bisect_right(self._logs, last_block, key=lambda entry: entry.block_number)
        return self._logs[start:stop]

    # Time

    def now(self) -> int:
        """What the next block's timestamp would be by the clock alone, in Unix seconds."""
        return int(self._clock()) + self._clock_offset_seconds

    def set_next_timestamp(self, timestamp: int) -> None:
        """Give the next block this time; the clock goes on from there. Raises ValueError if the head is later."""
        if timestamp < self.head.timestamp:
            raise ValueError(f"timestamp {timestamp} is before the head's, {self.head.timestamp}")
        self._next_timestamp = timestamp

    def advance_clock(self, seconds: int) -> int:
        """Put the clock forward; return by how much it is now off in all."""
        self._clock_offset_seconds += seconds
        return self._clock_offset_seconds

    def _take_timestamp(self) -> int:
        if self._next_timestamp is None:
            return max(self.now(), self.head.timestamp)
        timestamp, self._next_timestamp = self._next_timestamp, None
        self._clock_offset_seconds += timestamp - self.now()
        return timestamp

    # Fees

    def next_base_fee(self, block: Block) -> int:
        """Base fee of the block after ``block`` (EIP-1559), in wei."""
        return int(self._chain.create_header_from_parent(block.header).base_fee_per_gas)

    def suggested_priority_fee(self) -> int:
        """A tip that is enough here, in wei."""
        return _PRIORITY_FEE_WEI

    # Transactions

    def decode(self, raw: bytes) -> Any:
        """A signed transaction's RLP or typed envelope; raises :class:`TransactionRejected`."""
        try:
            transaction = self._builder().decode(raw)
            transaction.validate()
            transaction.check_signature_validity()
            _ = transaction.sender
        except Exception as error:
            raise TransactionRejected(f"invalid transaction: {error}") from error
        return transaction

    def sign(self, sender: bytes, **fields: Any) -> Any:
        """A transaction of an unlocked account; ``gas_price`` makes it a legacy one, else it is EIP-1559's."""
        key = self._keys.get(sender)
        if key is None:
            raise TransactionRejected("unknown account")
        if "gas_price" in fields:
            unsigned = self._builder().create_unsigned_transaction(**fields)
        else:
            unsigned = self._builder().new_unsigned_dynamic_fee_transaction(
                chain_id=self.chain_id, access_list=[], **fields
            )
        return unsigned.as_signed_transaction(key, chain_id=self.chain_id)

    def submit(self, transaction: Any) -> bytes:
        """Accept a signed transaction, mine it if :attr:`automine`; return its hash."""
        self._check(transaction)
        self.pending.append(transaction)
        if self.automine:
            try:
                self.mine()
            finally:
                self.pending = [waiting for waiting in self.pending if waiting is not transaction]
            if transaction.hash not in self._transactions:
                raise TransactionRejected("the transaction is not valid on the present state")
        return bytes(transaction.hash)

    def next_nonce(self, address: bytes) -> int:
        """The nonce of the sender's next transaction, those that wait counted."""
        waiting = sum(1 for transaction in self.pending if transaction.sender == address)
        return int(self.state_at(self.head).get_nonce(address)) + waiting

    def _check(self, transaction: Any) -> None:
        sender = transaction.sender
        if transaction.chain_id is not None and transaction.chain_id != self.chain_id:
            raise TransactionRejected(f"invalid chain id for signer: have {transaction.chain_id} want {self.chain_id}")
        if transaction.hash in self._transactions or any(waiting.hash == transaction.hash for waiting in self.pending):
            raise TransactionRejected("already known")
        nonce = self.next_nonce(sender)
        if transaction.nonce != nonce:
            word = "low" if transaction.nonce < nonce else "high"
            raise TransactionRejected(f"nonce too {word}: next nonce {nonce}, tx nonce {transaction.nonce}")
        if transaction.gas > GAS_LIMIT:
            raise TransactionRejected("exceeds block gas limit")
        if transaction.gas < transaction.intrinsic_gas:
            raise TransactionRejected(
                f"intrinsic gas too low: gas {transaction.gas}, minimum needed {transaction.intrinsic_gas}"
            )
        if transaction.max_fee_per_gas < self.next_base_fee(self.head):
            raise TransactionRejected("max fee per gas less than block base fee")
        balance = self.state_at(self.head).get_balance(sender)
        cost = transaction.gas * transaction.max_fee_per_gas + transaction.value
        if balance < cost:
            raise TransactionRejected(
                f"insufficient funds for gas * price + value: address 0x{sender.hex()} have {balance} want {cost}"
            )

    # Blocks

    def mine(self) -> Block:
        """Mine one block of the waiting transactions that fit, in order; it may be empty."""
        header = self._chain.create_header_from_parent(
            self.head.header, timestamp=self._take_timestamp(), gas_limit=GAS_LIMIT
        )
        vm = self._chain.get_vm(header)
        transactions, receipts, contracts = [], [], []
        waiting, self.pending = self.pending, []
        for transaction in waiting:
            if header.gas_used + transaction.gas > GAS_LIMIT:
                self.pending.append(transaction)
                continue
            snapshot = vm.state.snapshot()
            try:
                receipt, computation = vm.apply_transaction(header, transaction)
            except ValidationError:
                # An earlier one in this block spent the sender's money; geth's miner drops such too.
                vm.state.revert(snapshot)
                continue
            header = vm.add_receipt_to_header(header, receipt)
            transactions.append(transaction)
            receipts.append(receipt)
            contracts.append(bytes(computation.msg.storage_address) if computation.msg.is_create else None)
        filled = vm.set_block_transactions_and_withdrawals(vm.get_block(), header, transactions, receipts)
        mined = vm.finalize_block(vm.pack_block(filled)).block
        # py-evm's own validation would refuse two blocks in one second.
        self._chain.persist_block(mined, perform_validation=False)
        included = included_transactions(mined, transactions, receipts, contracts)
        block = Block(mined.header, mined.hash, len(rlp_encode(mined)), included)
        self._numbers_by_hash[block.hash] = len(self._blocks)
        self._blocks.append(block)
        for item in included:
            self._transactions[item.hash] = item
            self._logs.extend(item.logs)
        return block

    # State

    def state_at(self, block: Block) -> Any:
        """The state after ``block``; what is written to it is lost. Gas costs nothing in it."""
        return self._chain.get_vm(block.header.copy(base_fee_per_gas=0)).state

    def call(self, block: Block, sender: bytes, to: bytes | None, value: int, data: bytes, gas: int) -> Any:
        """Run a message on the state after ``block`` without a trace; return py-evm's computation."""
        state = self.state_at(block)
        context = state.transaction_context_class(gas_price=0, origin=sender)
        if to is None:
            created = _contract_address(sender, state.get_nonce(sender))
            message = Message(gas, Address(b""), Address(sender), value, b"", code=data, create_address=created)
            return state.computation_class.apply_create_message(state, message, context)
        message = Message(gas, Address(to), Address(sender), value, data, code=state.get_code(to))
        return state.computation_class.apply_message(state, message, context)

    def estimate_gas(self, block: Block, sender: bytes, to: bytes | None, value: int, data: bytes) -> int:
        """Gas with which the transaction succeeds after ``block``, little more than it needs.

        Raises py-evm's ``VMError`` if it fails with all the gas of a block.
        """
        unsigned = self._builder().create_unsigned_transaction(
            nonce=self.state_at(block).get_nonce(sender),
            gas_price=0,
            gas=GAS_LIMIT,
            to=to or b"",
            value=value,
            data=data,
        )

        def run(gas: int) -> Any:
            return self.state_at(block).apply_transaction(SpoofTransaction(unsigned, from_=sender, gas=gas))

        most = run(GAS_LIMIT)
        most.raise_if_error()
        needed = GAS_LIMIT - most.get_gas_remaining()
        # Inner calls get 63/64 of the gas at most (EIP-150), and one with a value needs the stipend in hand.
        likely = min((needed + _CALL_STIPEND) * 64 // 63, GAS_LIMIT)
        if needed == unsigned.intrinsic_gas:
            return int(needed)
        return int(likely) if run(likely).is_success else GAS_LIMIT

    def _builder(self) -> Any:
        return self._chain.get_vm(self.head.header).get_transaction_builder()


def _contract_address(sender: bytes, nonce: int) -> Address:
    return Address(keccak(rlp_encode([sender, nonce]))[12:])
