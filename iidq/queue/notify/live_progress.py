"""Steps of running jobs that are not stored yet, laid over the rows that were last seen. Pure.

Only the progress of the very attempt that the row tells of is ever changed, and only forwards: states come from the
database alone.
"""

from dataclasses import replace

from iidq.queue.job import Job, JobStatus


class LiveProgress:
    """What is known of the watched jobs, by the text of their ids."""

    def __init__(self) -> None:
        self._rows: dict[str, Job] = {}
        self._steps: dict[str, tuple[int, int]] = {}

    def step(self, key: str, attempt: int, percent: int) -> Job | None:
        """The attempt has come so far; returns the job as it now looks, None where that changes nothing."""
        known = self._steps.get(key)
        if known is None or (attempt, percent) > known:
            self._steps[key] = (attempt, percent)
        row = self._rows.get(key)
        if row is None:
            return None
        laid = self._laid_over(key, row)
        if laid is row:
            return None
        self._rows[key] = laid
        return laid

    def lacks(self, key: str, attempt: int) -> bool:
        """Whether the row that is known is older than this attempt."""
        row = self._rows.get(key)
        return row is None or row.attempt < attempt

    def seen(self, key: str, row: Job) -> Job:
        """The row was read; returns it with what is known beyond."""
        laid = self._rows[key] = self._laid_over(key, row)
        return laid

    def forget(self, key: str) -> None:
        """Nobody watches any more."""
        self._rows.pop(key, None)
        self._steps.pop(key, None)

    def _laid_over(self, key: str, row: Job) -> Job:
        attempt, percent = self._steps.get(key, (0, 0))
        if row.status is JobStatus.PROCESSING and row.attempt == attempt and percent > row.progress:
            return replace(row, progress=percent)
        return row
