"""The worker of worker_process with a wall clock wrong by ``CLOCK_SKEW_SECONDS``."""

import os
import sys
import time

_SKEW_SECONDS = float(os.environ["CLOCK_SKEW_SECONDS"])


def skew_the_clock() -> None:
    """Change the wall clock before other imports; the monotonic clock stays right, as on a host with a wrong date."""
    right_time, right_time_ns = time.time, time.time_ns
    time.time = lambda: right_time() + _SKEW_SECONDS
    time.time_ns = lambda: right_time_ns() + int(_SKEW_SECONDS * 1e9)

    import datetime

    right_datetime = datetime.datetime

    class SkewedDatetime(right_datetime):  # type: ignore[valid-type, misc]
        """Shifts the clock here as well: the C implementation reads the system's time, not the module ``time``."""

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:
            """Return the wrong time."""
            return right_datetime.now(tz) + datetime.timedelta(seconds=_SKEW_SECONDS)

        @classmethod
        def utcnow(cls) -> datetime.datetime:
            """Return the wrong time."""
            return cls.now(datetime.UTC).replace(tzinfo=None)

    datetime.datetime = SkewedDatetime  # type: ignore[misc]


if __name__ == "__main__":
    skew_the_clock()
    from iidq import worker
    from tests.faults.worker_process import handler_for

    worker.verification = handler_for  # type: ignore[assignment]
    sys.exit(worker.main())
