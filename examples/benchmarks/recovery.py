"""Which method finds the graph, on which data, at what cost.

    python examples/benchmarks/recovery.py [--data DIR] [--out DIR] [--sets lorenz96 chaos ...] [--methods skode ...]
                                           [--seeds 5] [--limit 600] [--published-iterations 500] [--quick]

Writes ``recovery.md``, ``recovery.csv`` (one line per fit) and, with matplotlib, ``recovery.png`` into the
output folder, and prints the tables as it goes. ``README.md`` beside this file describes sets, methods and columns.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
from _measure import measure
from _methods import ALWAYS, Answer, make_methods
from _sets import FAMILIES, SETS, BenchmarkSet
from _tables import COLUMNS, Row, figure, table

from skode.metrics import graph_scores, valid_prediction_time

QUICK_SETS = ("lorenz96-short", "decays", "dense")
QUICK_METHODS = ("skode", "pysindy", "lasso-integral", "trees", "correlation")


def judge(data: BenchmarkSet, answer: Answer) -> dict[str, float]:
    """Every figure of one answer; nan where the method has no say."""
    found: dict[str, float] = {}
    if answer.scores is not None or answer.matrix is not None:
        graph = graph_scores(
            data.truth, scores=answer.scores, matrix=answer.matrix, self_edges=data.self_edges, targets=data.targets
        )
        found |= {"AUROC": graph.auroc, "AUPR": graph.auprc, "F1": graph.f1, "balanced": graph.balanced_accuracy}
        found |= {"SHD": graph.shd, "edges": np.nan if graph.n_edges is None else graph.n_edges}
    if answer.forecast is not None:
        t = data.test_times
        late = (t > t[0]) & (t <= t[0] + data.horizon)
        sd = data.test.reshape(-1, data.test.shape[-1]).std(0)
        moving = sd > 1e-6
        error = ((answer.forecast - data.test)[:, late][..., moving]) / sd[moving]
        found["NRMSE"] = float(np.sqrt((error**2).mean()))
        found["MSE"] = float(((answer.forecast - data.test)[:, late] ** 2).mean())
        if data.period is not None:
            n, k = data.test.shape[:2]
            found["VPT"] = float(
                valid_prediction_time(
                    np.tile(t, n),
                    data.test.reshape(n * k, -1),
                    answer.forecast.reshape(n * k, -1),
                    trajectory=np.repeat(np.arange(n), k),
                    period=data.period,
                ).mean()
            )
    return {column: found.get(column, float("nan")) for column in COLUMNS}


def run_set(name: str, methods: list[str], arguments: argparse.Namespace, record: csv.DictWriter) -> list[Row]:
    """All methods and seeds on one set; an absent set gives no rows."""
    rows = []
    for method in methods:
        for seed in range(1, arguments.seeds + 1):
            data = SETS[name](seed, arguments.data)
            if data is None:
                return []
            got = measure(method, data, seed, limit=arguments.limit, iterations=arguments.published_iterations)
            figures = dict.fromkeys(COLUMNS, float("nan")) if got.answer is None else judge(data, got.answer)
            figures |= {"seconds": got.seconds, "MB": got.megabytes}
            rows.append(Row(name, method, seed, data.prevalence, figures, got.note))
            shown = {"set": name, "method": method, "seed": seed, "prevalence": data.prevalence, "note": got.note}
            record.writerow(shown | figures)
            if got.note == "too slow":
                break
    return rows


def main() -> None:
    """Run what was asked for; write the tables after every set, so that a stopped run keeps what it has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the sets that do not ship")
    parser.add_argument("--out", type=Path, default=Path("recovery-results"))
    parser.add_argument("--sets", nargs="*", default=[""], help="names of sets, or beginnings of names")
    parser.add_argument("--methods", nargs="*", help="names of methods; trivial baselines and ridge are always run")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=600.0, help="seconds per fit")
    parser.add_argument("--published-iterations", type=int, default=500)
    parser.add_argument("--quick", action="store_true", help="three sets, one seed, the fast methods")
    arguments = parser.parse_args()
    known = list(make_methods(0))
    asked = arguments.methods or (QUICK_METHODS if arguments.quick else known)
    unknown = set(asked) - set(known)
    names = [name for name in SETS if any(not start or f"{name}-".startswith(f"{start}-") for start in arguments.sets)]
    if arguments.quick:
        arguments.seeds, names = 1, [name for name in names if name in QUICK_SETS]
    if unknown or not names:
        parser.error(f"--methods must be among {', '.join(known)}, and --sets among {', '.join(SETS)}")
    methods = [name for name in known if name in asked or name in ALWAYS]
    arguments.out.mkdir(parents=True, exist_ok=True)
    parts, rows = ["# Recovery\n\nMean over seeds (largest minus smallest). README.md says what the columns are."], []
    with (arguments.out / "recovery.csv").open("w", newline="") as file:
        record = csv.DictWriter(file, ["set", "method", "seed", "prevalence", *COLUMNS, "note"])
        record.writeheader()
        for name in names:
            new = run_set(name, methods, arguments, record)
            file.flush()
            rows += new
            parts.append(table(name, new) if new else f"## {name}\n\nnot run (the data are not there; see --data)")
            print(f"\n{parts[-1]}", flush=True)
            (arguments.out / "recovery.md").write_text("\n\n".join(parts) + "\n")
    for family in FAMILIES:
        mine = [row for row in rows if row.set_name.startswith(family)]
        if mine:
            parts.append(table(f"{family}: mean of {len({row.set_name for row in mine})} systems", mine))
            print(f"\n{parts[-1]}", flush=True)
    (arguments.out / "recovery.md").write_text("\n\n".join(parts) + "\n")
    figure(rows, arguments.out / "recovery.png")


if __name__ == "__main__":
    main()
