"""Sources that are amounts, and what is usual of them."""

from __future__ import annotations

import numpy as np
import pytest

from skode import SparseNODERegressorCV, from_trajectories
from skode._amounts import amounts_of, are_amounts
from skode._fit import set_up
from skode.datasets import make_hill_network, make_lorenz96


def prepared_of(states, times, inputs=None, **settings):
    X, y, groups = from_trajectories(states, times, inputs=inputs)
    reading = SparseNODERegressorCV(random_state=0, **settings)._read(X, y, None, groups, None)
    return set_up(reading.trajectories, reading.specification, None).prepared


@pytest.fixture(scope="module")
def genes():
    return make_hill_network(5, 8, 10, noise=0.05, random_state=0)


def test_genes_are_amounts_in_units_of_what_is_usual(genes):
    prepared = prepared_of(genes.states, genes.times)
    assert are_amounts(prepared)
    amounts = amounts_of(prepared)
    standard = (np.concatenate(genes.states) - prepared.scales.state_mean) / prepared.scales.state_sd
    found = standard * amounts.gain + amounts.shift
    assert ((np.median(found, axis=0) > 0.5) & (np.median(found, axis=0) < 1.2)).all()
    share = found / np.concatenate(genes.states)
    np.testing.assert_allclose(share, np.broadcast_to(share[0], share.shape), rtol=1e-6)  # zero stays zero


def test_what_goes_below_zero_is_no_amount(genes):
    assert not are_amounts(prepared_of([x - 0.5 for x in genes.states], genes.times))
    waves = make_lorenz96(5, 6, 20, random_state=0)
    assert not are_amounts(prepared_of(waves.states, waves.times))


def test_time_and_velocities_are_no_amounts(genes):
    assert not are_amounts(prepared_of(genes.states, genes.times, time_dependent=True))


def test_inputs_count_among_the_sources(genes):
    inputs = np.random.default_rng(0).uniform(0.2, 1.0, (8, 1))
    assert are_amounts(prepared_of(genes.states, genes.times, inputs))
    assert not are_amounts(prepared_of(genes.states, genes.times, inputs - 0.6))
