"""How far each endpoint of a chain has got, so that one which fell behind is noticed. Pure.

Far behind means both: more blocks and more seconds of block time than a healthy endpoint lags. Blocks alone would
depend on the chain's pace; seconds alone would blame everybody on a chain that mines only on demand.
web3 asks one endpoint and compares it with no other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final, Literal

BlockTag = Literal["latest", "safe", "finalized"]

MAX_LAG_BLOCKS: Final = 3
# ``safe`` and ``finalized`` advance by whole epochs, 6.4 minutes on Ethereum.
MAX_LAG_SECONDS: Final[dict[BlockTag, float]] = {"latest": 60, "safe": 900, "finalized": 900}
REMEMBERED_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class _Head:
    number: int
    timestamp: int
    reported_at: float


class Heads:
    """The newest block that each endpoint has reported under one tag."""

    def __init__(self, tag: BlockTag, clock: Callable[[], float] = monotonic) -> None:
        self.max_lag_seconds = MAX_LAG_SECONDS[tag]
        self._clock = clock
        self._heads: dict[str, _Head] = {}

    def report(self, url: str, number: int, timestamp: int) -> None:
        """Take what the endpoint at ``url`` says now; ``timestamp`` is the block's, in Unix seconds."""
        self._heads[url] = _Head(number, timestamp, self._clock())

    def is_behind(self, url: str, number: int, timestamp: int) -> bool:
        """Whether another endpoint has lately reported a block that is far newer than this one."""
        oldest = self._clock() - REMEMBERED_SECONDS
        return any(
            head.number - number > MAX_LAG_BLOCKS and head.timestamp - timestamp > self.max_lag_seconds
            for other, head in self._heads.items()
            if other != url and head.reported_at >= oldest
        )
