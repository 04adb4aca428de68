"""One figure's runs, the median, and ratios to other figures. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Record:
    """A ``figure`` with ``unit`` and ``runs`` (one value at least).

    ``ratios``: reference → value divided by the reference's value; empty by default.
    """

    figure: str
    unit: str
    runs: tuple[float, ...]
    ratios: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError(f"{self.figure} has no runs")

    @property
    def value(self) -> float:
        """Return the median of the runs."""
        return median(self.runs)

    def as_json(self) -> dict[str, Any]:
        """Return the form for ``--json``; ``runs`` has the single values in the order of measurement."""
        return {
            "figure": self.figure,
            "unit": self.unit,
            "value": _rounded(self.value),
            "min": _rounded(min(self.runs)),
            "max": _rounded(max(self.runs)),
            "runs": [_rounded(run) for run in self.runs],
            "ratios": {reference: _rounded(ratio) for reference, ratio in self.ratios.items()},
        }


def compare(records: Sequence[Record], references: Mapping[str, Mapping[str, str | float]]) -> list[Record]:
    """Return the records with ratios. ``references``: figure → label → figure or number to divide by.

    A reference without measurement, or measured as zero, gives no ratio.
    """
    values = {record.figure: record.value for record in records}
    compared = []
    for record in records:
        divisors = {
            label: values.get(reference, 0.0) if isinstance(reference, str) else reference
            for label, reference in references.get(record.figure, {}).items()
        }
        ratios = {label: record.value / divisor for label, divisor in divisors.items() if divisor}
        compared.append(Record(record.figure, record.unit, record.runs, ratios))
    return compared


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value at rank ``share`` of the sorted values (nearest rank); raises ValueError for no values."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _rounded(value: float) -> float:
    """Round to four significant digits below 1,000, to whole numbers above."""
    return float(f"{value:.4g}") if abs(value) < 1000 else round(value)
