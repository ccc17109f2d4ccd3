"""Whether a confidence of .9 means nine in ten: confidences of edges against the truth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from _answers import Answer
from _sets import BenchmarkSet, family_of

EDGES = (0.0, 0.5, 0.7, 0.9, 0.95, 1.0)
SURE = 0.9


class Judged(NamedTuple):
    """One compared entry that is an edge of the answer, or of the truth, or of both."""

    set_name: str
    method: str
    seed: int
    confidence: float
    true: int  # 1 if it is an edge of the truth
    found: int  # 1 if it is an edge of the answer


def judged_edges(data: BenchmarkSet, method: str, seed: int, answer: Answer | None) -> list[Judged]:
    """Confidence beside truth; nothing for a method that has no confidence."""
    if answer is None or answer.confidence is None:
        return []
    found = answer.matrix > 0
    return [
        Judged(data.name, method, seed, float(answer.confidence[i, j]), int(data.truth[i, j]), int(found[i, j]))
        for i, j in np.argwhere(data.compared & (found | data.truth))
    ]


def reliability(title: str, judged: list[Judged]) -> str:
    """A Markdown table per bin of confidence, and the two figures at ``SURE``, for every method."""
    n_sets = len({row.set_name for row in judged})
    lines = [f"## Confidence: {title} ({n_sets} set{'s' * (n_sets != 1)})", ""]
    lines += ["| method | confidence | edges | share true | mean confidence |", "|---|---|---|---|---|"]
    below = []
    for method in dict.fromkeys(row.method for row in judged):
        mine = [row for row in judged if row.method == method]
        answer = [row for row in mine if row.found]
        for low, high in zip(EDGES[:-1], EDGES[1:], strict=True):
            inside = [row for row in answer if low <= row.confidence and (row.confidence < high or high == EDGES[-1])]
            lines.append(f"| {method} | {low:g} - {high:g} | {len(inside)} | {_mean(inside, 'true')} |")
            lines[-1] += f" {_mean(inside, 'confidence')} |"
        lines.append(f"| {method} | all | {len(answer)} | {_mean(answer, 'true')} | {_mean(answer, 'confidence')} |")
        sure = [row for row in answer if row.confidence >= SURE]
        n_true = sum(row.true for row in mine)
        hits = sum(row.true for row in sure)
        below.append(
            f"{method}: of {len(sure)} edges with confidence >= {SURE:g}, {_mean(sure, 'true')} are true; "
            f"of {n_true} true edges, {f'{hits / n_true:.3f}' if n_true else '-'} are found with that confidence."
        )
    return "\n".join([*lines, "", *(f"- {line}" for line in below)])


def all_reliabilities(judged: list[Judged]) -> list[str]:
    """One table per family of sets, and one of everything."""
    families: dict[str, list[Judged]] = {}
    for row in judged:
        families.setdefault(family_of(row.set_name), []).append(row)
    tables = [reliability(family, rows) for family, rows in families.items()]
    return tables + ([reliability("all sets", judged)] if len(families) > 1 else [])


def _mean(rows: list[Judged], name: str) -> str:
    return f"{np.mean([getattr(row, name) for row in rows]):.3f}" if rows else "-"
