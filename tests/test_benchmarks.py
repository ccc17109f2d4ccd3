"""The figures of the recovery benchmark on answers that are known, and its sets against their own laws."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from skode import SparseNODERegressor

FOLDER = Path(__file__).parents[1] / "examples" / "benchmarks"
sys.path.insert(0, str(FOLDER))

import _attractors  # noqa: E402
from _answers import Answer, runge_kutta, with_forecasts  # noqa: E402
from _attractors import ATTRACTORS, sample_attractor  # noqa: E402
from _figures import judge, knockout_figures  # noqa: E402
from _polynomial import CUBIC, POLYNOMIAL  # noqa: E402
from _published import fit_published  # noqa: E402
from _race import RACES, Course, _regression_rows, first_as_good, measure_race, train_published  # noqa: E402
from _record import Record  # noqa: E402
from _regressions import lasso, ridge  # noqa: E402
from _reliability import Judged, judged_edges, reliability  # noqa: E402
from _sets import SETS, BenchmarkSet, Probes, family_of  # noqa: E402
from _sindy import sindy_integral  # noqa: E402
from _steps import make_works  # noqa: E402
from _tables import COLUMNS, Row, table  # noqa: E402


@pytest.fixture
def decay() -> BenchmarkSet:
    """Two variables dx_i/dt = -x_i with a knock-out of the first and its control."""
    times, start = np.linspace(0.0, 2.0, 9), np.array([[1.0, 2.0], [0.5, -1.0]])
    path = start[:, None] * np.exp(-times)[:, None]
    knocked = path.copy()
    knocked[..., 0] = 0.0
    probes = Probes(times, unseen=2 * path, knockout=knocked, control=path, clamped=np.array([[True, False]] * 2))
    return BenchmarkSet("decay", list(path), [times] * 2, np.eye(2, dtype=bool), True, path, times, probes=probes)


def chain(x):
    """The second variable follows the first."""
    return np.stack([0 * x[:, 0], x[:, 0] - x[:, 1]], axis=1)


def test_runge_kutta_solves_a_linear_field(decay):
    answer = with_forecasts(Answer(), decay, runge_kutta(lambda x: -x, decay))
    np.testing.assert_allclose(answer.forecast, decay.test, atol=1e-7)
    np.testing.assert_allclose(answer.unseen, decay.probes.unseen, atol=1e-7)
    assert judge(decay, answer)["OOD"] == pytest.approx(0.0, abs=1e-12)


def test_a_field_that_ignores_the_gene_forecasts_no_effect_of_its_knock_out(decay):
    answer = with_forecasts(Answer(), decay, runge_kutta(lambda x: -x, decay))
    np.testing.assert_array_equal(answer.effect[..., 1], 0.0)
    np.testing.assert_allclose(answer.effect[..., 0], -decay.probes.control[..., 0], atol=1e-7)  # itself is held at 0
    figures = judge(decay, answer)
    assert figures["KO MSE"] == 0.0 and np.isnan(figures["KO r"])


def test_the_effect_of_a_knock_out_is_that_of_the_closed_form(decay):
    answer = with_forecasts(Answer(), decay, runge_kutta(chain, decay))
    first = decay.probes.control[:, 0, 0, None]  # x_1 stays, and takes x_2 along: dx_2/dt = x_1 - x_2
    np.testing.assert_allclose(answer.effect[..., 1], -first * (1 - np.exp(-decay.probes.times)), atol=1e-7)


def test_knock_out_figures_leave_out_clamped_genes_and_the_start(decay):
    rng = np.random.default_rng(0)
    true = rng.normal(size=decay.probes.control.shape)
    probes = replace(decay.probes, knockout=decay.probes.control + true)
    found = 2 * true + 1
    found[..., 0] = found[:, 0] = 1e3  # clamped, and at time 0
    figures = knockout_figures(probes, found)
    assert figures["KO r"] == pytest.approx(1.0)
    assert figures["KO MSE"] == pytest.approx(((true[:, 1:, 1] + 1) ** 2).mean())


@pytest.mark.parametrize(("name", "matrix", "wrong"), [("decays", np.ones, 90), ("dense", np.eye, 20)])
def test_shd_and_wrong_are_the_wrong_entries(name, matrix, wrong):
    data = SETS[name](1, None)
    d = len(data.truth)
    found = matrix(d) if matrix is np.eye else matrix((d, d))
    figures = judge(data, Answer(found, found))
    assert figures["wrong"] == wrong and figures["SHD"] == pytest.approx(wrong / d**2)
    assert judge(data, Answer(data.truth * 1.0, data.truth))["wrong"] == 0
    shown = table(name, [Row(name, "all", 1, data.prevalence, figures, "")]).splitlines()
    head = [cell.strip() for cell in shown[4].split("|")]
    line = [cell.strip() for cell in shown[6].split("|")]
    assert line[head.index("wrong")] == str(wrong)


def test_reliability_counts_bins_and_the_two_figures():
    confidences = [(0.2, 0, 1), (0.6, 1, 1), (0.89, 0, 1), (0.9, 1, 1), (0.94, 0, 1), (0.95, 1, 1), (1.0, 1, 1)]
    judged = [Judged("a-1", "m", 1, *row) for row in [*confidences, (0.0, 1, 0), (0.99, 1, 0)]]
    lines = reliability("a", judged).splitlines()
    cells = {line.split("|")[2].strip(): [c.strip() for c in line.split("|")[3:6]] for line in lines if "| m |" in line}
    assert cells["0 - 0.5"] == ["1", "0.000", "0.200"]
    assert cells["0.5 - 0.7"] == ["1", "1.000", "0.600"]
    assert cells["0.7 - 0.9"] == ["1", "0.000", "0.890"]
    assert cells["0.9 - 0.95"] == ["2", "0.500", "0.920"]
    assert cells["0.95 - 1"] == ["2", "1.000", "0.975"]
    assert cells["all"] == ["7", "0.571", f"{np.mean([c[0] for c in confidences]):.3f}"]
    # four sure edges of which three are true, among six true edges; one that the answer leaves out is not found
    assert lines[-1] == (
        "- m: of 4 edges with confidence >= 0.9, 0.750 are true; of 6 true edges, 0.500 are found with that confidence."
    )


def test_judged_edges_are_the_compared_entries_of_answer_or_truth():
    truth = np.array([[1, 1, 0], [0, 0, 1], [1, 0, 0]], bool)
    data = BenchmarkSet("x", [], [], truth, self_edges=False, targets=np.array([True, True, False]))
    matrix = np.array([[1.0, 0.0, 0.3], [0.0, 0.0, 0.5], [0.0, 0.7, 0.0]])
    confidence = np.arange(9).reshape(3, 3) / 10
    judged = judged_edges(data, "m", 3, Answer(matrix, matrix, confidence=confidence))
    assert [row[3:] for row in judged] == [(0.1, 1, 0), (0.2, 0, 1), (0.5, 1, 1)]
    assert judged_edges(data, "m", 3, Answer(matrix, matrix)) == judged_edges(data, "m", 3, None) == []


def test_a_record_goes_on_where_it_stopped(tmp_path):
    figures = dict.fromkeys(COLUMNS, float("nan")) | {"F1": 1 / 3}
    rows = [Row("decays", "b", 1, 0.1, figures, ""), Row("decays", "a", 1, 0.1, figures, "too slow")]
    record = Record(tmp_path, append=True)
    record.add(rows[0], [Judged("decays", "b", 1, 1 / 3, 1, 0)])
    record.add(rows[1], [])
    with record.edges.open("a") as file:
        file.write("decays,b,2,0.5,1,1\n")  # of a fit that was cut off before its line was written
    again = Record(tmp_path, append=True)
    assert again.judged == record.judged
    np.testing.assert_equal(again.of_set("decays", ["a", "b"]), rows[::-1])
    assert again.settled("decays", "b", 1) and not again.settled("decays", "b", 2)
    assert again.settled("decays", "a", 2)  # the first seed was too slow
    assert Record(tmp_path, append=False).rows == []


@pytest.mark.parametrize("name", POLYNOMIAL)
def test_the_graph_of_a_polynomial_system_is_its_jacobian(name):
    system = POLYNOMIAL[name](4, 40, 0.0, 3)
    states = np.concatenate(system.clean_states)
    steps = 1e-5 * np.eye(system.n_variables)
    slopes = [(system.slope(0.0, states + e, None) - system.slope(0.0, states - e, None)) / 2e-5 for e in steps]
    jacobian = np.abs(np.stack(slopes, axis=-1)).max(axis=0)  # (target, source)
    np.testing.assert_array_equal(jacobian > 1e-6, system.adjacency)


@pytest.mark.parametrize("name", POLYNOMIAL)
def test_a_polynomial_system_has_the_degree_that_is_named(name):
    system = POLYNOMIAL[name](1, 2, 0.0, 5)
    degree = 3 if name in CUBIC else 2
    direction = np.linspace(0.5, 1.5, system.n_variables)
    along = np.stack([system.slope(0.0, k * direction, None) for k in range(degree + 2)])
    scale = np.abs(along).max()
    np.testing.assert_allclose(np.diff(along, n=degree + 1, axis=0), 0.0, atol=1e-9 * scale)
    assert np.abs(np.diff(along, n=degree, axis=0)).max() > 1e-3


def test_polynomial_systems_are_drawn_anew_for_every_seed():
    for name in POLYNOMIAL:
        one, two = (POLYNOMIAL[name](1, 2, 0.0, seed) for seed in (1, 2))
        at = np.linspace(0.5, 1.5, one.n_variables)
        assert not np.allclose(one.slope(0.0, at, None), two.slope(0.0, at, None)), name


@pytest.mark.parametrize("name", ATTRACTORS)
def test_the_graph_of_an_attractor_is_its_jacobian(name):
    system = ATTRACTORS[name]
    d, step = len(system.start), 1e-6
    assert len(system.acts) == d
    points = np.array(system.start) + np.random.default_rng(0).normal(size=(40, d))
    moves = np.zeros((d, d), bool)
    for j, unit in enumerate(np.eye(d)):
        ahead, behind = (np.array([system.slope(*(x + s * step * unit)) for x in points]) for s in (1, -1))
        moves[:, j] = (np.abs(ahead - behind) > 1e-11).any(axis=0)
    assert ["".join(str(j) for j in np.flatnonzero(row)) for row in moves] == list(system.acts)


def test_an_attractor_is_sampled_as_those_of_the_file():
    clean, noisy, other = (sample_attractor("Rucklidge", *draw) for draw in ((0.0, 1), (0.05, 1), (0.05, 2)))
    assert clean.states.shape == (20, 40, 3) and clean.test.shape == (10, 61, 3)
    assert (clean.times[:, 0] == 0).all() and (np.diff(clean.times) > 0).all()
    assert clean.times.max() < 2 * clean.period and clean.test_times[-1] == pytest.approx(3 * clean.period)
    np.testing.assert_array_equal(clean.times, noisy.times)
    path, _ = _attractors._path("Rucklidge")  # of the few starts above other spreads than its own are likely
    spread = (noisy.states - clean.states).std(axis=(0, 1)) / path.std(axis=0)
    np.testing.assert_allclose(spread, 0.05, rtol=0.1)
    assert not np.isin(other.test[:, 0], noisy.test[:, 0]).any()
    crossings = (np.diff(np.sign(clean.test[..., 0] - clean.test[..., 0].mean()), axis=1) != 0).sum(axis=1)
    assert 2 <= crossings.mean() <= 12  # three periods


def test_integral_sindy_finds_a_law_that_its_library_holds():
    data = SETS["polynomial-lotka-volterra"](1, None)
    answer = sindy_integral(data, 0)
    assert ((answer.matrix > 0) == data.truth).all()
    assert judge(data, answer)["NRMSE"] < 0.1


@pytest.mark.parametrize("method", [ridge, lasso])
@pytest.mark.parametrize("middle", [False, True])
def test_linear_regressions_rank_self_decay_first(method, middle):
    data = SETS["decays"](1, None)
    assert judge(data, method(middle, data, 0))["AUROC"] > 0.95


def test_every_set_has_a_family():
    assert {family_of(name) for name in SETS} == {
        *(
            "lorenz96",
            "hill",
            "many",
            "hubs",
            "oscillators",
            "decays",
            "dense",
            "polynomial",
            "chaos",
            "attractor",
            "sim350",
        ),
        *("dream4-series", "dream4-inputs", "dream4-knockouts", "sampling-1", "sampling-10"),
    }


def test_sampling_changes_how_often_training_is_observed_and_nothing_else():
    few, many = SETS["sampling-1-lotka-volterra"](3, None), SETS["sampling-10-lotka-volterra"](3, None)
    assert len(few.states) == len(many.states) == 20
    for one, other in zip(few.states, many.states, strict=True):
        np.testing.assert_array_equal(one, other[::10])
    np.testing.assert_array_equal(few.test, many.test)
    assert few.test.shape[1] == len(few.test_times) == len(few.times[0])


def test_forecasts_on_the_way_change_nothing_in_the_published_training(decay):
    def watch(model):
        model.simulate(decay.test[:, 0], decay.test_times)
        return True

    plain, watched = (
        fit_published(decay.states, decay.times, n_iter=2, seed=1, hidden=5, watch=look) for look in (None, watch)
    )
    np.testing.assert_array_equal(plain.scores, watched.scores)


def test_the_published_training_ends_when_the_watch_says_so(decay):
    seen = []
    fit_published(
        decay.states, decay.times, n_iter=9, seed=1, hidden=5, watch=lambda _: len(seen.append(0) or seen) < 3
    )
    assert len(seen) == 3


def test_a_course_counts_training_alone_and_keeps_the_best(monkeypatch):
    now, errors = [0.0], iter([0.9, 0.5, 0.301, 0.3, 0.7])
    monkeypatch.setattr("time.process_time", lambda: now[0])

    def error_of(_):
        now[0] += 1000.0  # looking takes long, and is not counted
        return next(errors)

    course = Course(error_of, budget=5.0)
    went_on = []
    for _ in range(5):
        now[0] += 1.0
        went_on.append(course(None))
    assert went_on == [True] * 4 + [False]
    assert course.seconds == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert (course.lowest, course.reached) == (0.3, 3.0)  # .301 is within 1 %


def test_a_training_that_can_no_longer_be_solved_keeps_what_it_reached(decay, monkeypatch):
    def fit(*_, watch, **__):
        watch(fit_published(decay.states, decay.times, n_iter=1, seed=0, hidden=5))
        raise AssertionError("underflow in dt 0.0")

    monkeypatch.setattr("_race.fit_published", fit)
    course = train_published(decay, 5, 60.0)
    assert course.failed and np.isfinite(course.lowest) and course.n_iter == 1


def test_the_first_try_as_good_is_found_and_later_ones_are_not_run():
    ran = []
    errors = {50: 0.5, 100: 0.2, 200: 0.1}
    assert first_as_good(0.2, errors, lambda n: ran.append(n) or errors[n]) == 100
    assert ran == [50, 100]
    assert first_as_good(0.05, errors, errors.get) is None
    assert first_as_good(0.3, errors, lambda n: float("nan")) is None


def test_races_have_the_shapes_of_the_training_steps():
    works = make_works()
    for name in ("W2", "W3"):
        race, work = RACES[name], works[name]
        data = race.data()
        assert [len(t) for t in data.times] == [len(s) for s in data.states] == work.mask[..., 0].sum(1).tolist()
        assert data.states[0].shape[1] == work.start.shape[1]
        assert work.weights["W1"].shape[-2:] == (race.hidden, race.hidden)
        for x, t in zip(data.states, data.times, strict=True):
            assert t[0] == 0.0 and (np.diff(t) > 0).all() and np.isfinite(x).all()


@pytest.mark.filterwarnings("ignore")  # twenty iterations are few
def test_a_race_is_won_by_a_fit_that_is_at_least_as_good(monkeypatch):
    small = RACES["W2"]._replace(lengths=[8] * 4, hidden=5)
    monkeypatch.setitem(RACES, "small", small)
    monkeypatch.setattr("_race.TRIES", (20, 40))
    monkeypatch.setattr("_race.SparseNODERegressor", partial(SparseNODERegressor, max_iter=40))
    figures = {figure.what.removeprefix("small: "): figure for figure in measure_race("small", 0.3, 1)}
    ratio = figures.get("seconds to equal NRMSE, published / skode")
    mine, theirs = figures["skode, seconds to that NRMSE"], figures["published, seconds until within 1 % of that"]
    if ratio is None:
        assert np.isnan(mine.median)
    else:
        assert ratio.median == pytest.approx(theirs.median / mine.median)
        assert float(mine.note.split("NRMSE ")[1]) <= figures["published, lowest NRMSE"].median * 1.01
    assert {what.split(",")[0] for what in figures} >= {"ridge", "persistence", "training-mean", "start-or-mean"}
    assert figures["sindy-integral, NRMSE"].median > 0 and figures["sindy-integral, seconds"].median > 0


def test_regressions_on_monomials_are_not_run_where_variables_are_many(monkeypatch):
    monkeypatch.setattr("_race.installed", lambda name: True)
    assert [(what, note) for what, _, _, note in _regression_rows(RACES["W4"].data(), 1)] == [
        (f"{name}, NRMSE", "not run: monomials of 350 variables") for name in ("pysindy", "sindy-integral")
    ]
