"""Inputs of every measurement: sizes, server, and set-ups for several rounds."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

from benchmarks.options import Options
from benchmarks.server import Server

T = TypeVar("T")


@dataclass(slots=True)
class Bench:
    """Input of a measurement: ``options`` (sizes), ``server``, and ``kept``, closed after the last round."""

    options: Options
    server: Server
    kept: ExitStack
    _kept_by_name: dict[str, Any] = field(default_factory=dict)

    def once(self, name: str, opened: Callable[[], AbstractContextManager[T]]) -> T:
        """Open ``opened`` at the first call with the name, and keep the result for later rounds."""
        if name not in self._kept_by_name:
            self._kept_by_name[name] = self.kept.enter_context(opened())
        found: T = self._kept_by_name[name]
        return found


Measurement = Callable[[Bench], dict[str, float]]
"""One round of a measurement; returns its figures by name."""
