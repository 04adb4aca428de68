"""The duration of a verification's step, for the metrics and for a span."""

from time import perf_counter
from types import TracebackType
from typing import Self

from iidq.observability import metrics, traces
from iidq.observability.metrics import Step


class step:  # noqa: N801 — read as a statement: ``with step("manifest"):``
    """Measure the block of ``with step("manifest"):``, also when the block fails."""

    __slots__ = ("_name", "_span", "_started")

    def __init__(self, name: Step) -> None:
        self._name = name
        self._span = traces.span(name)

    def __enter__(self) -> Self:
        self._span.__enter__()
        self._started = perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        metrics.step_ended(self._name, perf_counter() - self._started)
        self._span.__exit__(kind, error, trace)
