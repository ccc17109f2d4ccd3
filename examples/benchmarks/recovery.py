"""Which method finds the graph, on which data, at what cost, and whether its confidence is to be believed.

    python examples/benchmarks/recovery.py [--data DIR] [--out DIR] [--sets lorenz96 chaos ...] [--methods skode ...]
                                           [--seeds 5] [--limit 600] [--published-iterations 500] [--quick] [--append]

Writes ``recovery.md``, ``recovery.csv`` (one line per fit), ``confidence.csv`` (one line per edge) and, with
matplotlib, ``recovery.png`` into the output folder, and prints the tables as it goes. ``README.md`` beside this file
describes sets, methods and columns.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from _figures import judge
from _measure import measure
from _methods import ALWAYS, make_methods
from _record import TOO_SLOW, Record
from _reliability import all_reliabilities, judged_edges
from _sets import FAMILIES, SETS, family_of
from _tables import COLUMNS, Row, figure, table

QUICK_SETS = ("lorenz96-short", "decays", "dense")
QUICK_METHODS = ("skode", "pysindy", "lasso-integral", "trees", "correlation")


def run_set(name: str, methods: list[str], arguments: argparse.Namespace, record: Record) -> bool:
    """All methods and seeds on one set that are not recorded yet; False where the set is absent."""
    for method in methods:
        for seed in range(1, arguments.seeds + 1):
            if record.settled(name, method, seed):
                continue
            data = SETS[name](seed, arguments.data)
            if data is None:
                return False
            got = measure(method, data, seed, limit=arguments.limit, iterations=arguments.published_iterations)
            figures = dict.fromkeys(COLUMNS, float("nan")) if got.answer is None else judge(data, got.answer)
            figures |= {"seconds": got.seconds, "MB": got.megabytes}
            row = Row(name, method, seed, data.prevalence, figures, got.note)
            record.add(row, judged_edges(data, method, seed, got.answer))
            if got.note == TOO_SLOW:
                break
    return True


def main() -> None:
    """Run what was asked for; write the tables after every set, so that a stopped run keeps what it has."""
    arguments, known = parse()
    asked = arguments.methods or (QUICK_METHODS if arguments.quick else known)
    names = [name for name in SETS if any(not start or f"{name}-".startswith(f"{start}-") for start in arguments.sets)]
    if arguments.quick:
        arguments.seeds, names = 1, [name for name in names if name in QUICK_SETS]
    methods = [name for name in known if name in asked or name in ALWAYS]
    record = Record(arguments.out, append=arguments.append)
    report = arguments.out / "recovery.md"
    parts = ["# Recovery\n\nMean over seeds (largest minus smallest). README.md says what the columns are."]
    for name in SETS:
        absent = name in names and not run_set(name, methods, arguments, record)
        rows = record.of_set(name, known)
        if not rows and not absent:
            continue
        parts.append(table(name, rows) if rows else f"## {name}\n\nnot run (the data are not there; see --data)")
        if name in names:
            print(f"\n{parts[-1]}", flush=True)
        report.write_text("\n\n".join(parts) + "\n")
    for text in summaries(record, known):
        parts.append(text)
        print(f"\n{text}", flush=True)
    report.write_text("\n\n".join(parts) + "\n")
    figure([row for name in SETS for row in record.of_set(name, known)], arguments.out / "recovery.png")


def summaries(record: Record, known: list[str]) -> list[str]:
    """Means over the systems of a family, then confidence against truth."""
    texts = []
    for family in FAMILIES:
        mine = [row for name in SETS if family_of(name) == family for row in record.of_set(name, known)]
        mine.sort(key=lambda row: known.index(row.method))
        if mine:
            texts.append(table(f"{family}: mean of {len({row.set_name for row in mine})} systems", mine))
    return texts + all_reliabilities(record.judged)


def parse() -> tuple[argparse.Namespace, list[str]]:
    """Arguments, and the names of all methods."""
    known = list(make_methods(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the sets that do not ship")
    parser.add_argument("--out", type=Path, default=Path("recovery-results"))
    parser.add_argument("--sets", nargs="*", default=[""], help="names of sets, or beginnings of names")
    parser.add_argument("--methods", nargs="*", help="names of methods; trivial baselines and ridge are always run")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--limit", type=float, default=600.0, help="seconds per fit")
    parser.add_argument("--published-iterations", type=int, default=500)
    parser.add_argument("--quick", action="store_true", help="three sets, one seed, the fast methods")
    parser.add_argument("--append", action="store_true", help="keep the fits that the output folder holds")
    arguments = parser.parse_args()
    unknown = set(arguments.methods or ()) - set(known)
    named = [start for start in arguments.sets if not start or any(f"{n}-".startswith(f"{start}-") for n in SETS)]
    if unknown or not named:
        parser.error(f"--methods must be among {', '.join(known)}, and --sets among {', '.join(SETS)}")
    return arguments, known


if __name__ == "__main__":
    main()
