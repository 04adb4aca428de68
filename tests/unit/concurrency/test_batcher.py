"""Batches: many callers, a single write."""

import asyncio
import random
from collections.abc import Sequence

import pytest

from iidq.concurrency.batcher import Batcher


class Refused(Exception):
    """An error of a single item of the batch."""


class Store:
    """The target of batches. Each write waits for ``let_through``; ``batches`` has the items."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.written: list[str] = []
        self.let_through = asyncio.Event()
        self.writes_begun = asyncio.Semaphore(0)

    async def write(self, items: Sequence[str]) -> Sequence[str]:
        self.batches.append(list(items))
        self.writes_begun.release()
        await self.let_through.wait()
        if "broken" in items:
            raise ConnectionError("the whole batch")
        if bad := [item for item in items if item.startswith("bad")]:
            raise Refused(bad[0])
        self.written.extend(items)
        return [f"{item}!" for item in items]


def no_item(_error: BaseException) -> bool:
    return False


def submit(batcher: Batcher[str, str], *items: str) -> list[asyncio.Future[str]]:
    return [batcher.submit(item) for item in items]


async def test_items_during_a_flight_share_the_next_batch() -> None:
    """The first item goes at once and alone; all items of the meantime go together, in order of arrival."""
    store = Store()
    batcher = Batcher(store.write, blames_one_item=no_item)
    first = submit(batcher, "a")
    await store.writes_begun.acquire()
    others = submit(batcher, "b", "c", "d")
    await asyncio.sleep(0)
    store.let_through.set()
    assert await asyncio.gather(*first, *others) == ["a!", "b!", "c!", "d!"]
    assert store.batches == [["a"], ["b", "c", "d"]]


async def test_a_caller_returns_after_its_own_commit_alone() -> None:
    """A caller gets no answer before the write of its own batch is over."""
    store = Store()
    [caller] = submit(Batcher(store.write, blames_one_item=no_item), "a")
    await store.writes_begun.acquire()
    assert not caller.done()
    store.let_through.set()
    assert await caller == "a!"
    assert store.written == ["a"]


async def test_batches_are_bounded_and_one_at_a_time() -> None:
    """However many callers wait, no statement carries more than the largest batch, and order is kept."""
    store = Store()
    store.let_through.set()
    batcher = Batcher(store.write, blames_one_item=no_item, largest_batch=10)
    items = [str(number) for number in range(95)]
    answers = await asyncio.gather(*submit(batcher, *items))
    assert answers == [f"{item}!" for item in items]
    assert store.written == items
    assert max(len(batch) for batch in store.batches) == 10


async def test_idle_comes_when_all_is_written_and_nobody_has_come() -> None:
    """``on_idle`` can release a held resource; items submitted meanwhile are still written."""
    store = Store()
    store.let_through.set()
    late: list[asyncio.Future[str]] = []
    written_at_idle: list[list[str]] = []

    async def idle() -> None:
        written_at_idle.append(list(store.written))
        if not late:
            late.append(batcher.submit("late"))
        await asyncio.sleep(0)

    batcher = Batcher(store.write, blames_one_item=no_item, on_idle=idle)
    assert await asyncio.gather(*submit(batcher, "a", "b")) == ["a!", "b!"]
    await batcher.close()
    assert await late[0] == "late!"
    assert written_at_idle == [["a", "b"], ["a", "b", "late"]]


async def test_one_bad_item_fails_alone() -> None:
    """After an error of one item, the others of the batch are still written."""
    store = Store()
    batcher = Batcher(store.write, blames_one_item=lambda error: isinstance(error, Refused))
    first = submit(batcher, "a")
    await store.writes_begun.acquire()
    others = submit(batcher, "b", "bad", "c")
    await asyncio.sleep(0)
    store.let_through.set()
    answers = await asyncio.gather(*first, *others, return_exceptions=True)
    assert answers[:2] == ["a!", "b!"]
    assert isinstance(answers[2], Refused)
    assert answers[3] == "c!"
    assert store.written == ["a", "b", "c"]


async def test_another_error_goes_to_the_whole_batch_and_no_further() -> None:
    """All callers of a failed batch get the error; the next batch is written."""
    store = Store()
    batcher = Batcher(store.write, blames_one_item=lambda error: isinstance(error, Refused))
    first = submit(batcher, "a")
    await store.writes_begun.acquire()
    second = submit(batcher, "b", "broken")
    await asyncio.sleep(0)
    store.let_through.set()
    answers = await asyncio.gather(*first, *second, return_exceptions=True)
    assert answers[0] == "a!"
    assert [type(answer) for answer in answers[1:]] == [ConnectionError, ConnectionError]
    assert await batcher.submit("later") == "later!"


async def test_a_cancelled_caller_disturbs_nobody() -> None:
    """A cancelled caller changes neither the others' results nor the write of the item."""
    store = Store()
    batcher = Batcher(store.write, blames_one_item=no_item)
    first = submit(batcher, "a")
    await store.writes_begun.acquire()
    gone, stays = submit(batcher, "b", "c")
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    store.let_through.set()
    assert await asyncio.gather(*first, stays) == ["a!", "c!"]
    assert gone.cancelled()
    assert store.written == ["a", "b", "c"]


async def test_close_waits_for_everything_submitted() -> None:
    """After close, all items are written; close of an idle batcher returns at once."""
    store = Store()
    batcher = Batcher(store.write, blames_one_item=no_item)
    await batcher.close()
    callers = submit(batcher, "a", "b")
    await store.writes_begun.acquire()
    closing = asyncio.create_task(batcher.close())
    await asyncio.sleep(0)
    assert not closing.done()
    store.let_through.set()
    await closing
    assert sorted(store.written) == ["a", "b"]
    assert all(caller.done() for caller in callers) or await asyncio.gather(*callers) == ["a!", "b!"]


async def test_a_cancelled_writer_leaves_no_caller_waiting() -> None:
    """At shutdown every caller is released, also callers of a batch in the middle of an item-by-item write."""
    store = Store()

    async def write(items: Sequence[str]) -> Sequence[str]:
        if len(items) > 1:
            raise Refused
        return await store.write(items)

    batcher = Batcher(write, blames_one_item=lambda error: isinstance(error, Refused))
    callers = submit(batcher, "a", "b", "c")
    await store.writes_begun.acquire()
    [writer] = [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and task not in callers]
    writer.cancel()
    answers = await asyncio.wait_for(asyncio.gather(*callers, return_exceptions=True), timeout=5)
    assert [type(answer) for answer in answers] == [asyncio.CancelledError] * 3


@pytest.mark.parametrize("seed", range(5))
async def test_every_item_is_answered_once(seed: int) -> None:
    """Under any interleaving each caller gets the answer of its item, and each item is written exactly once."""
    chance = random.Random(seed)
    written: list[int] = []

    async def write(items: Sequence[int]) -> Sequence[int]:
        for _ in range(chance.randrange(4)):
            await asyncio.sleep(0)
        if len(items) > 1 and chance.random() < 0.3:
            raise Refused
        written.extend(items)
        return [-item for item in items]

    batcher = Batcher(write, blames_one_item=lambda error: isinstance(error, Refused), largest_batch=7)

    async def call(item: int) -> int:
        for _ in range(chance.randrange(20)):
            await asyncio.sleep(0)
        return await batcher.submit(item)

    assert await asyncio.gather(*(call(item) for item in range(200))) == [-item for item in range(200)]
    assert sorted(written) == list(range(200))
