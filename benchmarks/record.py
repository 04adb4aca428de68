"""One figure's runs, their median, and ratios to other figures. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True, slots=True)
class Record:
    """One figure. ``ratios`` holds, by reference, this value divided by the reference's."""

    figure: str
    unit: str
    runs: tuple[float, ...]
    ratios: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.runs:
            raise ValueError(f"{self.figure} has no runs")

    @property
    def value(self) -> float:
        """The median of the runs."""
        return median(self.runs)

    def as_json(self) -> dict[str, Any]:
        """The form that ``--json`` writes; ``runs`` are the single values in the order they were measured."""
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
    """Return the records with ratios. ``references`` has, by figure, label → figure or number to divide by.

    A reference that was not measured, or measured as zero, gives no ratio.
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
    """The value that ``share`` of the values do not exceed (nearest rank); raises ValueError for none."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def _rounded(value: float) -> float:
    """Four significant digits below 1,000, whole numbers above."""
    return float(f"{value:.4g}") if abs(value) < 1000 else round(value)
