"""Rows of the recovery benchmark as Markdown, and as a figure."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import NamedTuple

import numpy as np

GRAPH = ("AUROC", "AUPR", "F1", "precision", "recall", "balanced", "SHD", "wrong", "edges")
FORECAST = ("NRMSE", "MSE", "VPT", "OOD", "KO r", "KO MSE")
COSTS = ("seconds", "MB")
COLUMNS = GRAPH + FORECAST + COSTS


class Row(NamedTuple):
    """One fit."""

    set_name: str
    method: str
    seed: int
    prevalence: float
    figures: dict[str, float]
    note: str


def table(title: str, rows: list[Row]) -> str:
    """A Markdown table: one line per method, mean and spread over its rows; columns that nobody fills are left out."""
    columns = [c for c in COLUMNS if any(np.isfinite(row.figures[c]) for row in rows)]
    prevalence = np.mean([row.prevalence for row in rows])
    lines = [f"## {title}", "", f"prevalence {prevalence:.3f}, {len({row.seed for row in rows})} seeds", ""]
    lines += ["| method | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for method in dict.fromkeys(row.method for row in rows):
        mine = [row for row in rows if row.method == method]
        done = [row for row in mine if not row.note]
        if done and not any(np.isfinite(row.figures[c]) for row in done for c in COLUMNS if c not in COSTS):
            continue  # it has nothing to say about this set
        cells = [cell(np.array([row.figures[c] for row in done])) for c in columns]
        notes = ", ".join(sorted({row.note for row in mine if row.note}))
        if notes:
            cells[0] += f" not run ({notes})" if not done else f" ({len(mine) - len(done)} of {len(mine)} {notes})"
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(values: np.ndarray) -> str:
    """Mean and spread; a dash where nothing is known."""
    values = values[np.isfinite(values)]
    if not len(values):
        return "-"
    spread = f" ({np.ptp(values):.2g})" if len(values) > 1 else ""
    mean = values.mean()
    return f"{mean:.0f}{spread}" if 1000 <= abs(mean) < 1e5 else f"{mean:.3g}{spread}"


def figure(rows: list[Row], path: Path) -> None:
    """Draw AUPR above chance and F1 of every method on every set, if matplotlib is there."""
    if importlib.util.find_spec("matplotlib") is None or not rows:
        return
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    sets = list(dict.fromkeys(row.set_name for row in rows))
    judged = [row for row in rows if np.isfinite(row.figures["AUPR"])]
    methods = list(dict.fromkeys(row.method for row in judged))
    fig, axes = plt.subplots(
        1, 2, figsize=(3.5 + 0.7 * len(methods), 1.8 + 0.27 * len(sets)), sharey=True, layout="constrained"
    )
    for axis, column in zip(axes, ("AUPR", "F1"), strict=True):
        values = np.full((len(sets), len(methods)), np.nan)
        for k, name in enumerate(sets):
            for m, method in enumerate(methods):
                cells = [r.figures[column] for r in judged if r.set_name == name and r.method == method]
                cells = [value for value in cells if np.isfinite(value)]
                values[k, m] = np.mean(cells) if cells else np.nan
        axis.imshow(values, vmin=0, vmax=1, cmap="viridis", aspect="auto")
        for (k, m), value in np.ndenumerate(values):
            if np.isfinite(value):
                colour = "white" if value < 0.6 else "black"
                axis.text(m, k, f"{value:.2f}", ha="center", va="center", fontsize=6, color=colour)
        axis.set_title(column)
        axis.set_xticks(range(len(methods)), methods, rotation=90, fontsize=7)
        axis.set_yticks(range(len(sets)), sets, fontsize=7)
    fig.savefig(path, dpi=150)
    plt.close(fig)
