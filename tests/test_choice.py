"""The rules that choose among supports, by hand."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from skode import from_trajectories
from skode._choice import choose, choose_levels, information
from skode._layout import Layout
from skode._prepare import prepare
from skode._trajectories import as_trajectories

LOSSES = np.array([[3.0, 1.1, 1.0, 1.2], [3.0, 1.2, 1.4, 1.2], [3.0, 1.3, 1.0, 1.6]])
# Means 3, 1.2, 3.4/3, 4/3: level 2 is best. Differences of level 1 to it are .1, -.2, .3: mean .0667, sd .2517,
# standard error .1453; .0667 <= .1453 + 2 % of 1.1333, so that level 1, with fewer edges, is chosen.


def test_one_standard_error_rule_by_hand():
    edges = np.array([0, 2, 5, 9])
    assert choose(LOSSES, edges, "best") == 2
    assert choose(LOSSES, edges, "one_se") == 1


def test_without_spread_two_percent_are_allowed():
    same = np.tile([[1.03, 1.019, 1.0]], (4, 1))
    assert choose(same, np.array([0, 1, 2]), "one_se") == 1


def test_ties_go_to_fewer_edges_then_to_the_lower_loss():
    level = np.tile([[1.0, 1.0, 1.0]], (3, 1))
    for rule in ("one_se", "best"):
        assert choose(level, np.array([4, 2, 3]), rule) == 1
    near = np.tile([[1.01, 1.005, 1.0]], (3, 1))
    assert choose(near, np.array([2, 2, 3]), "one_se") == 1


def test_one_fold_has_no_standard_error():
    assert choose(np.array([[1.5, 1.01, 1.0]]), np.array([0, 1, 2]), "one_se") == 1


def test_every_target_has_its_own_level_unless_weights_are_shared():
    losses = np.tile(np.array([[1.0, 1.0], [0.1, 0.9], [0.5, 0.1]]), (3, 1, 1))  # targets are best at levels 1 and 2
    n_edges, alphas = np.array([[0, 0], [1, 1], [2, 2]]), np.array([1.0, 0.1, 0.01])
    apart = choose_levels(losses, alphas, n_edges, "best", per_target=True)
    assert apart[0] == 2 and apart[1].tolist() == [1, 2]
    assert choose_levels(losses, alphas, n_edges, "best", per_target=False)[1].tolist() == [2, 2]


def test_a_number_of_edges_takes_the_nearest_level_and_no_folds_the_plain_strength():
    n_edges, alphas = np.array([[0, 0], [1, 1], [2, 2]]), np.array([1.0, 0.025, 1e-4])
    losses = np.ones((3, 3, 2))
    assert choose_levels(losses, alphas, n_edges, 3 + 2, per_target=True)[1].tolist() == [2, 2]
    assert choose_levels(losses[:0], alphas, n_edges, "one_se", per_target=True)[1].tolist() == [1, 1]


def test_information_is_the_extended_bic_of_every_second_row():
    rng, times = np.random.default_rng(0), np.linspace(0.0, 4.0, 13)
    X, y, groups = from_trajectories(list(np.exp(-times[:, None] * rng.uniform(0.2, 1.0, (8, 1, 3)))), times)
    trajectories = as_trajectories(X, y, layout=Layout(n_states=3, n_inputs=0, order=1), groups=groups)
    prepared = prepare(trajectories, order=1, time_dependent=False)
    losses, n_edges = rng.uniform(0.1, 1.0, (1, 2, 3)), np.array([[0, 1, 2], [1, 2, 3]])
    found = information(losses, n_edges, prepared)
    weight = prepared.slope_weights
    n = 0.5 * weight.sum(0) ** 2 / (weight**2).sum(0)
    for level in range(2):
        for target in range(3):
            k = int(n_edges[level, target])
            expected = n[target] * np.log(losses[0, level, target]) + k * np.log(n[target]) + 2 * np.log(comb(3, k))
            assert found[0, level, target] == pytest.approx(expected)
