"""Series that were cut into trajectories: found again, in the order of time, and only where it is certain."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from skode import from_trajectories
from skode._chains import Chains, find_chains
from skode._folds import halves, make_folds, most_folds
from skode._layout import Layout
from skode._pieces import smooth_pieces
from skode._prepare import prepare
from skode._problem import build_problem
from skode._trajectories import as_trajectories
from skode.smooth import smooth

TIMES = np.arange(40) * 0.5


def series(seed=0, n=40, hold=1, d=2, m=1):
    """A random walk and inputs that change every ``hold`` observations."""
    rng = np.random.default_rng(seed)
    inputs = np.repeat(rng.normal(size=(-(-n // hold), m)), hold, axis=0)[:n]
    return np.cumsum(rng.normal(size=(n, d)), axis=0), inputs


def tied(states, times, inputs=None, *, labels=None, shuffle=None, **options):
    X, y, groups = from_trajectories(states, times, inputs=inputs, **options)
    groups = groups if labels is None else np.asarray(labels)[groups]
    order = np.arange(len(X)) if shuffle is None else np.random.default_rng(shuffle).permutation(len(X))
    m = 0 if inputs is None else np.shape(inputs[0])[-1]
    layout = Layout.infer(1 + y.shape[1] + m, y.shape[1])
    return as_trajectories(X[order], y[order], layout=layout, groups=groups[order])


def walk(trajectories, chains, number):
    """Starts of the trajectories of one series, in its order."""
    members = chains.order[chains.series[chains.order] == number]
    return trajectories.initial[members]


@pytest.mark.parametrize("shuffle", [None, 1])
@pytest.mark.parametrize("hold", [1, 3])
def test_segments_of_a_series_are_found_in_the_order_of_time(hold, shuffle):
    states, inputs = zip(*(series(seed, hold=hold) for seed in range(3)), strict=True)
    trajectories = tied(states, TIMES, inputs, shuffle=shuffle)
    chains = find_chains(trajectories)
    assert len(np.unique(chains.series)) == 3
    found = [walk(trajectories, chains, number) for number in range(3)]
    for one in states:
        assert sum(np.array_equal(part, one[:-1:hold]) for part in found) == 1


def test_windows_of_one_series_hang_together():
    states, _ = series()
    trajectories = tied([states], TIMES, start=4)
    chains = find_chains(trajectories)
    assert np.array_equal(walk(trajectories, chains, 0), states[:-1:4])


def test_nothing_hangs_together_across_a_jump_or_another_group():
    states, inputs = series()
    cut = find_chains(tied([states], TIMES, [inputs], breaks=[TIMES[20]]))
    assert np.bincount(cut.series).tolist() in ([19, 19], [20, 19], [19, 20])
    halves_of_one = [states[:21], states[20:]]
    apart = find_chains(tied(halves_of_one, [TIMES[:21], TIMES[20:]], [inputs[:21], inputs[20:]]))
    together = find_chains(tied(halves_of_one, [TIMES[:21], TIMES[20:]], [inputs[:21], inputs[20:]], labels=[7, 7]))
    assert len(np.unique(apart.series)) == 2 and len(np.unique(together.series)) == 1


def test_a_state_that_occurs_twice_ties_nothing():
    states, inputs = series(d=1)
    states[30] = states[10]
    chains = find_chains(tied([states], TIMES, [inputs]))
    assert sorted(np.bincount(chains.series).tolist()) == [9, 10, 20]


def test_independent_trajectories_are_series_of_their_own():
    states = [series(seed)[0] for seed in range(4)]
    chains = find_chains(tied(states, TIMES))
    assert (chains.after < 0).all() and chains.series.tolist() == [0, 1, 2, 3] and not chains.place.any()


def test_a_ring_is_opened():
    states, inputs = series(n=6)
    states[-1] = states[0]
    trajectories = tied([states], TIMES[:6], [inputs])
    chains = find_chains(trajectories)
    assert (chains.after < 0).sum() == 1 and sorted(chains.place.tolist()) == [0, 1, 2, 3, 4]
    assert chains.place[0] == 0


def test_what_comes_before_is_summed_along_every_series():
    chains = Chains(np.array([2, -1, 3, -1]), np.array([0, 1, 0, 0]), np.array([0, 0, 1, 2]))
    assert chains.order.tolist() == [0, 2, 3, 1]
    assert chains.before(np.array([5, 7, 11, 13])).tolist() == [0, 0, 5, 16]


# folds


@pytest.mark.parametrize("hold", [1, 3, 7])
def test_a_series_whose_inputs_change_is_cut_into_blocks_of_time(hold):
    states, inputs = series(hold=hold)
    folds = make_folds(tied([states], TIMES, [inputs]), 4)
    assert folds.kind == "blocks" and len(folds.parts) == 4
    for k, (train, test) in enumerate(folds.parts):
        seen = {tuple(row) for row in test.states}
        assert seen == {tuple(row) for row in states[10 * k : 10 * (k + 1)]}
        assert not seen & {tuple(row) for row in train.states}


def test_series_without_rows_at_their_starts_are_cut_as_those_with():
    states, inputs = series()
    X, y, groups = from_trajectories([states], TIMES, inputs=[inputs])
    later = X[:, 0] > 0
    bare = as_trajectories(X[later], y[later], layout=Layout.infer(4, 2), groups=groups[later])
    expected = make_folds(tied([states], TIMES, [inputs]), 4)
    for found, other in zip(make_folds(bare, 4).parts, expected.parts, strict=True):
        for mine, theirs in zip(found, other, strict=True):
            np.testing.assert_array_equal(mine.states, theirs.states)
            np.testing.assert_array_equal(mine.times, theirs.times)


def test_short_series_have_no_blocks():
    states, inputs = series(n=6)
    assert most_folds(tied([states], TIMES[:6], [inputs]), 4).kind == "none"


def test_half_samples_of_a_series_share_no_observation():
    states, inputs = series()
    pairs = halves(tied([states], TIMES, [inputs]), 5, 0)
    assert len(pairs) == 5
    for pair in pairs:
        first, second = ({tuple(row) for row in half.states} for half in pair)
        assert not first & second and len(first | second) == 40


# smoothing


def pieces_of(inputs, path, h):
    return [(np.array([0.0, h]), path[k : k + 2], np.ones(2)) for k in range(len(inputs))]


@pytest.mark.parametrize("noise", [0.01, 0.1])
def test_noise_is_told_by_series_of_single_intervals(noise):
    rng = np.random.default_rng(1)
    inputs, h, n = rng.normal(size=(600, 1)), 0.2, 600
    x = np.zeros((n + 1, 2))
    for k in range(n):  # dx/dt = (u - x, 3 sin t), the input held
        x[k + 1, 0] = inputs[k, 0] + (x[k, 0] - inputs[k, 0]) * np.exp(-h)
        x[k + 1, 1] = 3 * (1 - np.cos((k + 1) * h))
    seen = x + noise * rng.normal(size=x.shape)
    line = Chains(np.append(np.arange(1, n), -1), np.zeros(n, dtype=int), np.arange(n))
    found = smooth_pieces(
        pieces_of(inputs, seen, h), inputs, line, moves=None, order=1, bent=np.ones(n, dtype=bool)
    ).whole
    np.testing.assert_allclose(found.noise, noise, rtol=0.2)  # bends are not wholly those of the inputs
    assert found.moves.all() and (found.dof < 0.7 * n).all()
    for k, states in enumerate(found.states):  # nothing smooths across a change
        np.testing.assert_allclose(states, seen[k : k + 2], atol=1e-12)


@pytest.mark.parametrize("n_inputs", [1, 20, 150])
def test_many_inputs_do_not_take_noise_for_their_effect(n_inputs):
    rng = np.random.default_rng(5)
    inputs, n = rng.normal(size=(120, n_inputs)), 120
    path = np.cumsum(np.append(0.0, 0.2 * inputs[:, 0]))[:, None] + 0.1 * rng.normal(size=(n + 1, 1))
    line = Chains(np.append(np.arange(1, n), -1), np.zeros(n, dtype=int), np.arange(n))
    bent = np.ones(n, dtype=bool)
    found = smooth_pieces(pieces_of(inputs, path, 1.0), inputs, line, moves=None, order=1, bent=bent).whole
    assert 0.08 < found.noise[0] < 0.3


def test_a_clock_that_restarts_is_a_change():
    """One recording of dx/dt = 3 exp(-4 t) - 1/2, in trials of which each starts the clock anew."""
    times, start, trials = np.linspace(0.0, 1.5, 16), 0.0, []
    for _ in range(12):
        trials.append((start + 0.75 * (1 - np.exp(-4 * times)) - 0.5 * times)[:, None])
        start = trials[-1][-1, 0]
    X, y, _ = from_trajectories(trials, times)
    layout = Layout.infer(2, 1, time_dependent=True)
    prepared = prepare(as_trajectories(X, y, layout=layout), order=1, time_dependent=True)
    assert np.unique(prepared.series).tolist() == [0]
    slopes = (prepared.slopes * prepared.scales.slope_unit()).reshape(12, 15)
    np.testing.assert_allclose(slopes, np.tile(np.diff(trials[0][:, 0]) / 0.1, (12, 1)), atol=1e-3)


def test_a_constant_is_found_along_a_series_of_single_intervals():
    rng = np.random.default_rng(2)
    inputs = rng.normal(size=(200, 1))
    path = np.column_stack([np.cumsum(np.append(0.0, inputs)), 0.1 * rng.normal(size=201)])
    line = Chains(np.append(np.arange(1, 200), -1), np.zeros(200, dtype=int), np.arange(200))
    found = smooth_pieces(
        pieces_of(inputs, path, 1.0), inputs, line, moves=None, order=1, bent=np.ones(200, dtype=bool)
    ).whole
    assert found.moves.tolist() == [True, False] and abs(found.noise[1] - 0.1) < 0.02


def test_trajectories_that_do_not_hang_together_are_smoothed_as_ever():
    rng = np.random.default_rng(3)
    pieces = [(TIMES, np.sin(TIMES)[:, None] + 0.1 * rng.normal(size=(40, 1)), np.ones(40)) for _ in range(3)]
    alone = Chains(np.full(3, -1), np.arange(3), np.zeros(3, dtype=int))
    found = smooth_pieces(pieces, np.zeros((3, 0)), alone, moves=None, order=1, bent=np.zeros(3, dtype=bool)).whole
    expected = smooth(*(list(column) for column in zip(*pieces, strict=True)))
    for mine, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mine, other)


def test_paths_of_order_two_go_on_where_an_input_changes():
    """A force bends the velocity of what it moves, not its path."""
    rng = np.random.default_rng(4)
    force, h, n = rng.normal(size=(300, 1)), 0.2, 300
    place, velocity = np.zeros(n + 1), np.zeros(n + 1)
    for k in range(n):
        place[k + 1] = place[k] + h * velocity[k] + 0.5 * h**2 * force[k, 0]
        velocity[k + 1] = velocity[k] + h * force[k, 0]
    line = Chains(np.append(np.arange(1, n), -1), np.zeros(n, dtype=int), np.arange(n))
    found = smooth_pieces(
        pieces_of(force, place[:, None], h), force, line, moves=None, order=2, bent=np.ones(n, dtype=bool)
    )
    slopes = np.array([slope[0, 0] for slope in found.slopes])
    lines = np.diff(place) / h
    assert np.abs(slopes - velocity[:-1]).mean() < 0.7 * np.abs(lines - velocity[:-1]).mean()


# windows


def problem_of(trajectories, starts):
    prepared = prepare(trajectories, order=1, time_dependent=False)
    options = {"dtype": torch.float64, "device": torch.device("cpu")}
    return prepared, build_problem(prepared, window=5, starts=starts, **options)


def test_windows_go_on_from_segment_to_segment():
    states, inputs = series(hold=7)
    prepared, problem = problem_of(tied([states], TIMES, [inputs]), "refined")
    windows = problem.windows
    assert problem.held_windows is None and prepared.interval_series.tolist() == [0] * 39
    assert (windows.after < 0).sum() == 1  # only the last one
    for here, there in enumerate(windows.after.tolist()):
        last = int((windows.weights[here].sum(-1) > 0).nonzero().max())
        if there >= 0:  # both meet one observation
            np.testing.assert_allclose(windows.targets[here, last], windows.targets[there, 0], atol=1e-12)


def test_windows_that_start_exactly_as_given_are_not_tied():
    states, inputs = series(hold=7)
    windows = problem_of(tied([states], TIMES, [inputs]), "given")[1].windows
    exact = (windows.spread == 0).all(dim=1)
    assert exact.sum() == 6 and (windows.after >= 0).sum() == len(exact) - 6
    assert not exact[windows.after[windows.after >= 0]].any()


@pytest.mark.parametrize("hold", [1, 3, 7, 13])
def test_what_is_held_out_along_a_series_no_window_has_seen(hold):
    states, inputs = series(n=200, hold=hold)
    prepared, problem = problem_of(tied([states], np.arange(200) * 0.5, [inputs]), "refined")
    observed = prepared.scales.standard_states(states)

    def intervals(windows):
        """Numbers of the intervals of the series that windows cover, by the observations at their ends."""
        found = set()
        for targets, weights in zip(windows.targets.numpy(), windows.weights.numpy(), strict=True):
            rows = targets[weights.sum(axis=1) > 0]
            place = [int(np.flatnonzero(np.isclose(observed, row).all(axis=1))[0]) for row in rows]
            found |= set(range(min(place), max(place)))
        return found

    seen, held = intervals(problem.windows), intervals(problem.held_windows)
    assert not seen & held and len(seen | held) == 199
    assert len(problem.held_rows.slopes) == len(held) and 20 <= len(held) <= 60
