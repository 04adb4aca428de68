"""One run: the chosen figures, round by round, then medians and ratios, as a table and as JSON."""

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console

from benchmarks import options
from benchmarks.bench import Bench
from benchmarks.catalogue import Figure, UnknownFigure, described, select
from benchmarks.peers import PeerFigure, Peers
from benchmarks.record import Record, compare
from benchmarks.server import run_server
from benchmarks.table import print_table, shown


def main(arguments: Sequence[str]) -> int:
    """Measure and print; return the exit code: 0, or 2 for an unknown figure."""
    asked = options.parse(arguments, f"figures by group:\n{described()}")
    try:
        figures = select(asked.figures)
    except UnknownFigure as error:
        print(error, file=sys.stderr)
        return 2
    # The table may go to a file; progress goes to the terminal.
    progress, output = Console(stderr=True), Console()
    with run_server() as server, ExitStack() as kept:
        progress.print(f"Postgres: {server.description()}", highlight=False)
        bench = Bench(asked.options, server, kept)
        beside = Peers(asked.peers_folder, asked.peers, bench, [figure.name for figure in figures])
        records = compare(
            measure(bench, figures, beside, progress),
            with_peers({figure.name: figure.references for figure in figures}, beside.figures),
        )
    print_table(records, output)
    if asked.json_path:
        write_json(records, asked.json_path)
    return 0


def measure(bench: Bench, figures: Sequence[Figure], beside: Peers, progress: Console) -> list[Record]:
    """Measure round by round: a slow hour of the machine slows all figures alike."""
    runs: dict[str, list[float]] = {figure.name: [] for figure in figures}
    runs |= {figure.name: [] for figure in beside.figures}
    for number in range(1, bench.options.runs + 1):
        for measurement in dict.fromkeys(figure.measurement for figure in figures):
            values = {name: value for name, value in measurement(bench).items() if name in runs}
            for name, value in values.items():
                runs[name].append(value)
                progress.print(f"  round {number}  {name} {shown(value)}", highlight=False)
            for name, value in beside.measure(values):
                runs[name].append(value)
                progress.print(f"  round {number}  {name} {shown(value)}", highlight=False)
    units = {figure.name: figure.unit for figure in figures}
    units |= {figure.name: figure.unit for figure in beside.figures}
    return [Record(name, units[name], tuple(values)) for name, values in runs.items() if values]


def with_peers(
    references: Mapping[str, Mapping[str, str | float]], figures: Sequence[PeerFigure]
) -> dict[str, Mapping[str, str | float]]:
    """Return the references, with each peer's figure for comparison."""
    found = {name: dict(compared) for name, compared in references.items()}
    for figure in figures:
        found[figure.ours][figure.peer] = figure.name
    return {**found}


def write_json(records: Sequence[Record], path: Path) -> None:
    """Write a list with an object per figure."""
    path.write_text(json.dumps([record.as_json() for record in records], indent=1) + "\n")
