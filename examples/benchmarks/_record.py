"""What a run leaves and finds again: ``recovery.csv``, one line per fit, and ``confidence.csv``, one per edge."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from _reliability import Judged
from _tables import COLUMNS, Row

FIELDS = ["set", "method", "seed", "prevalence", *COLUMNS, "note"]
TOO_SLOW = "too slow"


class Record:
    """All fits so far, in memory and in two files of a folder; ``append`` keeps what the files hold already."""

    def __init__(self, folder: Path, *, append: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.fits, self.edges = folder / "recovery.csv", folder / "confidence.csv"
        self.rows: list[Row] = [_row(line) for line in _lines(self.fits)] if append else []
        known = {row[:3] for row in self.rows}
        kept = [_judged(line) for line in _lines(self.edges)] if append else []
        self.judged: list[Judged] = [one for one in kept if one[:3] in known]  # not those of a fit that was cut off
        _write(self.fits, "w", [FIELDS, *map(_cells, self.rows)])
        _write(self.edges, "w", [["set", *Judged._fields[1:]], *self.judged])

    def settled(self, set_name: str, method: str, seed: int) -> bool:
        """Whether this fit is there, or an earlier seed was too slow."""
        mine = [row for row in self.rows if (row.set_name, row.method) == (set_name, method)]
        return any(row.seed == seed or (row.note == TOO_SLOW and row.seed < seed) for row in mine)

    def add(self, row: Row, judged: list[Judged]) -> None:
        """Keep one fit, on disk at once."""
        self.rows.append(row)
        self.judged += judged
        _write(self.edges, "a", judged)
        _write(self.fits, "a", [_cells(row)])

    def of_set(self, name: str, methods: list[str]) -> list[Row]:
        """The fits of one set, methods and seeds in order."""
        mine = [row for row in self.rows if row.set_name == name and row.method in methods]
        return sorted(mine, key=lambda row: (methods.index(row.method), row.seed))


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _row(line: dict[str, Any]) -> Row:
    figures = {column: float(line.get(column) or "nan") for column in COLUMNS}
    return Row(line["set"], line["method"], int(line["seed"]), float(line["prevalence"]), figures, line["note"])


def _judged(line: dict[str, Any]) -> Judged:
    numbers = float(line["confidence"]), int(line["true"]), int(line["found"])
    return Judged(line["set"], line["method"], int(line["seed"]), *numbers)


def _cells(row: Row) -> list[Any]:
    return [*row[:4], *(row.figures[column] for column in COLUMNS), row.note]


def _write(path: Path, mode: str, lines: list[Any]) -> None:
    with path.open(mode, newline="") as file:
        csv.writer(file).writerows(lines)
