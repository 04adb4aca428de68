"""The printed table."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.record import Record


def print_table(records: Sequence[Record], console: Console) -> None:
    """Print figures, the range of the runs, and the ratios."""
    table = Table(title="benchmarks", title_justify="left")
    table.add_column("figure")
    table.add_column("median", justify="right")
    table.add_column("unit")
    table.add_column("min – max", justify="right")
    table.add_column("ratios")
    for record in records:
        ratios = "  ".join(f"{ratio:.2f} × {reference}" for reference, ratio in record.ratios.items())
        spread = f"{shown(min(record.runs))} – {shown(max(record.runs))}"
        table.add_row(record.figure, shown(record.value), record.unit, spread, ratios)
    console.print(table)


def shown(value: float) -> str:
    """Return whole numbers from 100 on, else three significant digits."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
