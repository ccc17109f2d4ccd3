"""Seconds to equal held-out error: the published method and skode on data of the shapes of W1 to W4.

Laws are known (W1 Lorenz 1963; the others Hill networks with 2.1 edges per gene, of 10, 529 and 350 genes), training
states carry 5 % noise, and ten more trajectories, free of it, are forecast from their true starts (Lorenz: over one
turn, .75; forecasts of chaos are soon worse than a constant whatever made them). The published method
(``_published.py``, hidden layers as wide as the workload's) trains for a given time, is judged on the way with its
clock stopped, and counts with the best that it ever was: to stop by the test itself is kinder than any use of it could
be. skode is fitted with default settings, its own network included, but for ``max_iter``, which grows until a fit is
at least as good as that. Sparse regressions on monomials are fitted beside these, where variables are few. Seconds are
the processor's, for what takes minutes cannot be timed in turn on a machine that others use too.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import numpy as np
from _answers import Answer
from _figures import judge
from _methods import ALWAYS, make_methods
from _published import Published, fit_published
from _sets import BenchmarkSet
from _steps import installed
from _timing import PATIENCE, Figure, figure_of

from skode import SparseNODERegressor, from_trajectories
from skode.datasets import SimulatedSystem, make_hill_network, make_lorenz63

N_TEST = 10
N_CHECKS = 100
"""Looks at the held-out error during training."""
N_ITER = 5000
"""Iterations of the publication; where the time does not end training, they do."""
TRIES = (50, 100, 200, 400, 800, 1600)
"""Values of ``max_iter``."""
REGRESSIONS = ("pysindy", "sindy-integral")
MOST_VARIABLES = 50
"""Variables up to which these are fitted: 1325 monomials of second degree."""


class Race(NamedTuple):
    """One workload: a law, the number of observations of every training trajectory, units per hidden layer.

    Forecasts count until ``horizon``.
    """

    simulate: Callable[..., SimulatedSystem]
    lengths: list[int]
    hidden: int
    horizon: float = np.inf

    def data(self) -> BenchmarkSet:
        """Training trajectories see a random part of the times, always the first; test trajectories all."""
        rng, n_train = np.random.default_rng(0), len(self.lengths)
        system = self.simulate(n_trajectories=n_train + N_TEST, noise=0.05, random_state=0)
        times = np.asarray(system.times[0])
        seen = [np.r_[0, 1 + np.sort(rng.permutation(len(times) - 1)[: n - 1])] for n in self.lengths]
        return BenchmarkSet(
            system.name,
            [np.asarray(x)[rows] for x, rows in zip(system.states, seen, strict=False)],
            [times[rows] for rows in seen],
            system.adjacency,
            system.self_edges,
            test=np.array(system.clean_states[n_train:]),
            test_times=times,
            horizon=self.horizon,
        )

    @property
    def shape(self) -> str:
        """Number of trajectories and observations."""
        few, many = min(self.lengths), max(self.lengths)
        return f"{len(self.lengths)} x {few}" + (f" to {many}" if many > few else "")


RACES = {
    "W1": Race(partial(make_lorenz63, n_times=100, dt=0.025), [50] * 20, 50, horizon=0.75 + 1e-9),
    "W2": Race(partial(make_hill_network, 10, n_times=30), [30] * 50, 64),
    "W3": Race(partial(make_hill_network, 529, n_times=347, dt=0.015), [347, 280, 190], 100),
    "W4": Race(partial(make_hill_network, 350, n_times=9, dt=0.5), [5 + k % 5 for k in range(150)], 100),
}


class Course:
    """Held-out errors of a model while it trains. Its clock stands still while an error is measured."""

    def __init__(self, error_of: Callable[[Published], float], budget: float) -> None:
        self.error_of, self.budget = error_of, budget
        self.n_iter, self.spent, self.due, self.failed = 0, 0.0, 0.0, False
        self.seconds: list[float] = []
        self.errors: list[float] = []
        self.began = time.process_time()

    def __call__(self, model: Published) -> bool:
        """Count one iteration, look at the error where it is time, and say whether to go on."""
        self.spent += time.process_time() - self.began
        self.n_iter += 1
        if self.spent >= min(self.due, self.budget):
            self.seconds.append(self.spent)
            self.errors.append(self.error_of(model))
            self.due = self.spent + self.budget / N_CHECKS
        self.began = time.process_time()
        return self.spent < self.budget

    @property
    def lowest(self) -> float:
        """The lowest error that it reached."""
        return float(np.nanmin(self.errors))

    @property
    def reached(self) -> float:
        """The first second at which it was within 1 % of that."""
        return self.seconds[int(np.argmax(np.array(self.errors) <= 1.01 * self.lowest))]

    @property
    def ending(self) -> str:
        """How long it trained, and how that ended."""
        falling = "; still falling" if self.reached > 0.9 * self.spent else ""
        failed = "; then its field could not be solved" if self.failed else ""
        return f"{self.n_iter} iterations in {self.spent:.0f} s{falling}{failed}"


def train_published(data: BenchmarkSet, hidden: int, budget: float) -> Course:
    """Train the published method; a field that can no longer be solved ends it."""
    course = Course(partial(held_out_error, data), budget)
    try:
        fit_published(data.states, data.times, n_iter=N_ITER, seed=0, hidden=hidden, watch=course)
    except AssertionError:  # "underflow in dt"
        if not course.errors:
            raise
        course.failed = True
    return course


class Fits:
    """Fits of skode, default but for ``max_iter``: the held-out error of each, and seconds of all its repetitions."""

    def __init__(self, data: BenchmarkSet) -> None:
        self.data = data
        self.errors: dict[int, float] = {}
        self.seconds: dict[int, list[float]] = {}

    def error(self, max_iter: int) -> float:
        """Fit, the first time that this is asked for."""
        if max_iter not in self.errors:
            self._fit(max_iter)
        return self.errors[max_iter]

    def repeated(self, max_iter: int, rounds: int) -> list[float]:
        """Seconds of ``rounds`` fits, of fewer where they take long."""
        self.error(max_iter)
        while len(self.seconds[max_iter]) < rounds and sum(self.seconds[max_iter]) < PATIENCE:
            self._fit(max_iter)
        return self.seconds[max_iter]

    def _fit(self, max_iter: int) -> None:
        X, y, groups = from_trajectories(self.data.states, self.data.times)
        began = time.process_time()
        model = SparseNODERegressor(max_iter=max_iter, random_state=0).fit(X, y, groups=groups)
        self.seconds.setdefault(max_iter, []).append(time.process_time() - began)
        self.errors[max_iter] = held_out_error(self.data, model)


def held_out_error(data: BenchmarkSet, model: Published | SparseNODERegressor) -> float:
    """NRMSE of the forecasts of the test trajectories."""
    return judge(data, Answer(forecast=model.simulate(data.test[:, 0], data.test_times)))["NRMSE"]


def first_as_good(goal: float, tries: Iterable[int], error_of: Callable[[int], float]) -> int | None:
    """The first of ``tries`` whose error is at most the goal; later ones are not tried."""
    return next((one for one in tries if error_of(one) <= goal), None)


def measure_race(name: str, budget: float, rounds: int) -> list[Figure]:
    """One workload: who is how good, and after how many seconds."""
    race, data, methods = RACES[name], RACES[name].data(), make_methods(N_ITER)
    trivial = {method: judge(data, methods[method](data, 0))["NRMSE"] for method in ALWAYS}
    course = train_published(data, race.hidden, budget)
    rows = [
        *_published_rows(race, course, min(error for method, error in trivial.items() if method != "ridge")),
        *_skode_rows(data, course, rounds),
        *_regression_rows(data, rounds),
        *((f"{method}, NRMSE", "", [value], "") for method, value in trivial.items()),
    ]
    return [figure_of("race", f"{name}: {what}", unit, values, note) for what, unit, values, note in rows]


_Line = tuple[str, str, list[float], str]


def _published_rows(race: Race, course: Course, best: float) -> list[_Line]:
    """Where the published method ended, and how that compares with the best forecast that knows no dynamics."""
    verdict = "below" if course.lowest < best else "NOT below"
    about = f"{race.shape}, hidden {race.hidden}-{race.hidden}, {course.ending}"
    return [
        ("published, lowest NRMSE", "", [course.lowest], f"{verdict} the best forecast without a model ({best:.3g})"),
        ("published, seconds until within 1 % of that", "s", [course.reached], about),
    ]


def _regression_rows(data: BenchmarkSet, rounds: int) -> list[_Line]:
    """Sparse regressions on monomials: whole fits, with the forecasts that tell their errors."""
    methods, rows, d = make_methods(N_ITER), [], data.states[0].shape[1]
    for name in REGRESSIONS:
        missing = name == "pysindy" and not installed(name)
        if missing or d > MOST_VARIABLES:
            why = "it is not installed" if missing else f"monomials of {d} variables"
            rows.append((f"{name}, NRMSE", "", [np.nan], f"not run: {why}"))
            continue
        times: list[float] = []
        for _ in range(rounds):
            began = time.process_time()
            answer = methods[name](data, 0)
            times.append(time.process_time() - began)
        rows.append((f"{name}, NRMSE", "", [judge(data, answer)["NRMSE"]], ""))
        rows.append((f"{name}, seconds", "s", times, "with forecasts"))
    return rows


def _skode_rows(data: BenchmarkSet, course: Course, rounds: int) -> list[_Line]:
    """The shortest fit that is as good as the published method ever was, and the fit with default settings."""
    fits, default = Fits(data), SparseNODERegressor().max_iter
    max_iter = first_as_good(course.lowest, TRIES, fits.error)
    if max_iter is None:
        equal: list[_Line] = [("skode, seconds to that NRMSE", "s", [np.nan], f"not with max_iter up to {TRIES[-1]}")]
    else:
        sign = "<=: the smallest tried, " if max_iter == TRIES[0] else ""
        seconds, used = fits.repeated(max_iter, rounds), f"{sign}max_iter {max_iter}, NRMSE {fits.error(max_iter):.3g}"
        ratios = [course.reached / t for t in seconds]
        equal = [
            ("skode, seconds to that NRMSE", "s", seconds, used),
            ("seconds to equal NRMSE, published / skode", "x", ratios, "at least" if sign else ""),
        ]
    return [
        *equal,
        ("skode with default settings, NRMSE", "", [fits.error(default)], f"max_iter {default}"),
        ("skode with default settings, seconds", "s", fits.repeated(default, rounds), ""),
    ]
