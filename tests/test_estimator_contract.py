"""scikit-learn's own checks of an estimator: all of them pass, none is skipped, none is expected to fail."""

from __future__ import annotations

from unittest import SkipTest

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.utils.estimator_checks import (
    check_dataframe_column_names_consistency,
    estimator_checks_generator,
    parametrize_with_checks,
)

from skode import SparseNODERegressor, SparseNODERegressorCV, StabilitySelection

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::skode.exceptions.DivergedPredictionWarning"),
    pytest.mark.filterwarnings("ignore::skode.exceptions.IdentifiabilityWarning"),
    pytest.mark.filterwarnings("ignore:X must hold elapsed times:UserWarning"),
    pytest.mark.filterwarnings("ignore:t should not be negative:UserWarning"),
    pytest.mark.filterwarnings("ignore:The initial states in X should be named:UserWarning"),
    pytest.mark.filterwarnings("ignore:Choosing by cross-validation needs:UserWarning"),
    pytest.mark.filterwarnings("ignore:Stability selection needs:UserWarning"),
    pytest.mark.filterwarnings("ignore:The data should allow cv=:UserWarning"),
]

QUICK = {"max_iter": 20}
"""Whether checks pass does not depend on how well the tables are fitted: poor_score is the only leave taken."""

# Every path through the constructor; one entry is one whole battery.
OTHER = {
    "dense": {"penalty": None},
    "l1 in one network": {"penalty": "l1", "field": "shared"},
    "l0 on edges": {"penalty": "l0"},
    "pathreg on weights": {"penalty": "pathreg", "field": "residual"},
    "lassonet": {"penalty": "lassonet"},
    "through the solver": {"training": "trajectory", "initial_state": "observed"},
    "second order": {"order": 2, "initial_velocity": "inferred"},
    "under a clock": {"time_dependent": True},
    "no refit, double precision": {"refit": False, "dtype": "float64"},
}


def run(check, estimator):
    try:
        check(estimator)
    except SkipTest as reason:
        pytest.fail(f"a check was skipped: {reason}")


CROSS_VALIDATED = SparseNODERegressorCV(**QUICK, n_alphas=2, cv=2)
STABLE = StabilitySelection(SparseNODERegressor(max_iter=5), n_pairs=1)


@parametrize_with_checks([SparseNODERegressor(**QUICK), CROSS_VALIDATED, STABLE])
def test_passes_the_check(estimator, check):
    run(check, estimator)


@pytest.mark.slow
@parametrize_with_checks(
    [
        SparseNODERegressor(),
        SparseNODERegressorCV(max_iter=20),
        StabilitySelection(SparseNODERegressorCV(max_iter=5, n_alphas=2), n_pairs=1),
    ]
)
def test_passes_the_check_as_constructed_by_default(estimator, check):
    run(check, estimator)


@pytest.mark.slow
@parametrize_with_checks([SparseNODERegressor(max_iter=5, **options) for options in OTHER.values()])
def test_passes_the_check_with_other_options(estimator, check):
    run(check, estimator)


@pytest.mark.parametrize("estimator", [SparseNODERegressor(), CROSS_VALIDATED, STABLE], ids=lambda e: type(e).__name__)
def test_no_check_is_left_out(estimator):
    names = [check.func.__name__ for _, check in estimator_checks_generator(estimator)]
    assert len(names) >= 60
    assert {"check_array_api_input", "check_sample_weight_equivalence_on_dense_data"} <= set(names)


def test_names_of_columns_are_checked_as_scikit_learn_does_it_for_its_own_estimators():
    check_dataframe_column_names_consistency("SparseNODERegressor", SparseNODERegressor(**QUICK))


@pytest.mark.parametrize("estimator", [SparseNODERegressor(), CROSS_VALIDATED, STABLE], ids=lambda e: type(e).__name__)
def test_only_poor_score_is_claimed(estimator):
    tags = estimator.__sklearn_tags__()
    assert tags.regressor_tags.poor_score
    assert not (tags.no_validation or tags._skip_test or tags.non_deterministic)
    assert tags.target_tags.required and tags.target_tags.multi_output
    assert not tags.input_tags.allow_nan and not tags.input_tags.sparse


def test_construction_computes_nothing_and_keeps_what_it_is_given():
    options = {"alpha": "wrong", "hidden_layer_sizes": [3, 2], "device": "nowhere", "penalty": object()}
    estimator = SparseNODERegressor(**options)
    assert {name: getattr(estimator, name) for name in options} == options
    assert estimator.get_params(deep=False)["hidden_layer_sizes"] is options["hidden_layer_sizes"]


@pytest.mark.parametrize("options", OTHER.values(), ids=OTHER.keys())
def test_every_option_survives_clone_and_a_second_fit(options):
    t = np.linspace(0, 1, 12)
    X, y = np.column_stack([t, np.ones(12)]), np.exp(-t)
    estimator = SparseNODERegressor(max_iter=5, random_state=0, **options)
    first = clone(estimator).fit(X, y).predict(X)
    again = estimator.fit(X, y).fit(X, y).predict(X)
    np.testing.assert_array_equal(first, again)
    assert estimator.get_params() == clone(estimator).get_params()


def test_fitted_state_is_numpy_and_plain_data():
    t = np.linspace(0, 1, 12)
    fitted = SparseNODERegressor(**QUICK).fit(np.column_stack([t, np.ones(12)]), np.exp(-t))
    seen: set[int] = set()

    def walk(value):
        if id(value) in seen:
            return
        seen.add(id(value))
        assert not isinstance(value, (torch.Tensor, torch.nn.Module, torch.Generator, torch.device)), type(value)
        if isinstance(value, dict):
            members = list(value.values())
        elif isinstance(value, (list, tuple)):
            members = list(value)
        elif type(value).__module__.startswith("skode"):
            members = list(vars(value).values())
        else:
            members = []
        for member in members:
            walk(member)

    walk(fitted)
