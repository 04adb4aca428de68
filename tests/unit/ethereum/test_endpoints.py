"""Endpoints with old heads."""

import pytest

from iidq.provenance.ethereum.endpoints import REMEMBERED_SECONDS, BlockTag, Heads


@pytest.mark.parametrize(
    ("tag", "number", "timestamp", "behind"),
    [
        ("latest", 100, 1000, False),
        ("latest", 97, 900, False),
        ("latest", 90, 940, False),
        ("latest", 96, 939, True),
        ("latest", 101, 1100, False),
        ("finalized", 36, 616, False),
        ("finalized", 20, 99, True),
    ],
)
def test_far_behind_is_blocks_and_seconds(tag: BlockTag, number: int, timestamp: int, behind: bool) -> None:
    """Only more than three blocks and more than the tag's seconds of block time together are far behind."""
    heads = Heads(tag, clock=lambda: 0.0)
    heads.report("a", 100, 1000)
    heads.report("b", number, timestamp)
    assert heads.is_behind("b", number, timestamp) is behind
    assert not heads.is_behind("a", 100, 1000) or number > 100


def test_no_endpoint_is_behind_itself() -> None:
    """An endpoint of a restarted chain is not compared with the earlier reports."""
    heads = Heads("latest", clock=lambda: 0.0)
    heads.report("a", 100, 10_000)
    heads.report("a", 1, 5)
    assert not heads.is_behind("a", 1, 5)
    assert not heads.is_behind("b", 1, 5)


def test_old_reports_are_forgotten() -> None:
    """An old report of another endpoint does not count."""
    now = 0.0
    heads = Heads("latest", clock=lambda: now)
    heads.report("a", 100, 10_000)
    now = REMEMBERED_SECONDS
    assert heads.is_behind("b", 1, 5)
    now += 1
    assert not heads.is_behind("b", 1, 5)
