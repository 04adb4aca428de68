"""Reuse of verdicts."""

import asyncio
from typing import Any

import pytest

from iidq.errors import IidqError, RpcFault, SignatureFault
from iidq.provenance.verdict_cache import VerdictCache


class Verifying:
    """Count the runs; wait for ``may_end`` if set; raise ``fault`` if set."""

    def __init__(self) -> None:
        self.runs = 0
        self.size = 0
        self.started = asyncio.Event()
        self.may_end: asyncio.Event | None = None
        self.fault: IidqError | None = None

    async def __call__(self) -> dict[str, Any]:
        self.runs += 1
        run = self.runs
        self.started.set()
        if self.may_end is not None:
            await self.may_end.wait()
        if self.fault is not None:
            raise self.fault
        return {"run": run, "text": "x" * self.size, "report": {"reused": False}}


async def test_a_verdict_is_reused_for_a_while_and_says_so() -> None:
    """A repeated question gets the same verdict, marked as reused, until the time is over; then a new verdict."""
    now, verify = 0.0, Verifying()
    verdicts = VerdictCache(10, clock=lambda: now)
    first = await verdicts.reuse_or("a", verify)
    now = 9.9
    second = await verdicts.reuse_or("a", verify)
    assert (first["run"], first["report"]["reused"]) == (1, False)
    assert (second["run"], second["report"]["reused"]) == (1, True)
    now = 10.0
    assert (await verdicts.reuse_or("a", verify))["report"]["reused"] is False
    assert verify.runs == 2


async def test_another_question_is_answered_anew() -> None:
    """Different questions share no verdict."""
    verify, verdicts = Verifying(), VerdictCache(10)
    await verdicts.reuse_or(("a", 1), verify)
    await verdicts.reuse_or(("a", 2), verify)
    assert verify.runs == 2


async def test_nobody_can_change_anothers_verdict() -> None:
    """Each caller gets a separate copy of the verdict."""
    verify, verdicts = Verifying(), VerdictCache(10)
    first = await verdicts.reuse_or("a", verify)
    first["report"]["reused"] = "spoilt"
    second = await verdicts.reuse_or("a", verify)
    second["run"] = "spoilt"
    assert (await verdicts.reuse_or("a", verify)) == {"run": 1, "text": "", "report": {"reused": True}}


async def test_simultaneous_questions_share_one_run() -> None:
    """Of simultaneous callers the first has the verdict of the run, and the others a reused one."""
    verify, verdicts = Verifying(), VerdictCache(10)
    verify.may_end = asyncio.Event()
    asking = [asyncio.create_task(verdicts.reuse_or("a", verify)) for _ in range(5)]
    await verify.started.wait()
    verify.may_end.set()
    results = await asyncio.gather(*asking)
    assert verify.runs == 1
    assert [result["report"]["reused"] for result in results] == [False, True, True, True, True]


@pytest.mark.parametrize("fault", [RpcFault("down"), SignatureFault("bad")])
async def test_faults_are_never_kept(fault: IidqError) -> None:
    """After a fault the next caller gets a new run."""
    verify, verdicts = Verifying(), VerdictCache(10)
    verify.fault = fault
    with pytest.raises(type(fault)):
        await verdicts.reuse_or("a", verify)
    verify.fault = None
    result = await verdicts.reuse_or("a", verify)
    assert (result["run"], result["report"]["reused"]) == (2, False)


async def test_a_cancelled_asker_takes_nothing_from_the_others() -> None:
    """When the first caller leaves, the second still gets the verdict."""
    verify, verdicts = Verifying(), VerdictCache(10)
    verify.may_end = asyncio.Event()
    first = asyncio.create_task(verdicts.reuse_or("a", verify))
    second = asyncio.create_task(verdicts.reuse_or("a", verify))
    await verify.started.wait()
    first.cancel()
    verify.may_end.set()
    assert (await second)["run"] == 1
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_the_memory_is_bounded() -> None:
    """Of more verdicts than fit, the latest are kept."""
    verify, verdicts = Verifying(), VerdictCache(10)
    verify.size = 1 << 20
    for number in range(40):
        await verdicts.reuse_or(number, verify)
    assert (await verdicts.reuse_or(39, verify))["report"]["reused"] is True
    assert (await verdicts.reuse_or(0, verify))["report"]["reused"] is False
