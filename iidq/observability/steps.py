"""One step of a verification, measured: how long it took goes into the metrics and, where traces are on, in a span."""

from time import perf_counter
from types import TracebackType
from typing import Self

from iidq.observability import metrics, traces
from iidq.observability.metrics import Step


class step:  # noqa: N801 — read as a statement: ``with step("manifest"):``
    """``with step("manifest"):`` measures what is inside, also where it fails."""

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
