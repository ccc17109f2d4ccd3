"""Scorers inside scikit-learn's own tools, on estimators that are not ours."""

from __future__ import annotations

import pickle

import numpy as np
import pandas as pd
import pytest
import sklearn
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_validate

from skode.metrics import nrmse, persistence_skill
from skode.scoring import neg_nrmse_scorer, persistence_skill_scorer, r2_scorer

SCORERS = [neg_nrmse_scorer, persistence_skill_scorer, r2_scorer]


class Decay(RegressorMixin, BaseEstimator):
    """Forecast x0 exp(-rate t); learns nothing."""

    def __init__(self, rate=1.0):
        self.rate = rate

    def fit(self, X, y, sample_weight=None):
        self.fitted_ = True
        return self

    def predict(self, X):
        X = np.asarray(X)
        return X[:, 1:3] * np.exp(-self.rate * X[:, :1])


def decays(missing=False):
    """Six trajectories of two states under one input, six times from 0 each, decaying at rate 0.7."""
    rng = np.random.default_rng(0)
    t = np.tile(np.arange(6.0), 6)
    groups = np.repeat(np.arange(6), 6)
    start = rng.normal(size=(6, 2))[groups]
    y = start * np.exp(-0.7 * t[:, None])
    if missing:
        y[rng.random(y.shape) < 0.2] = np.nan
    return np.column_stack([t, start, groups % 2]), y, groups


def test_scores_equal_the_metrics_on_the_rows_without_anchors():
    X, y, _ = decays()
    y = y + 0.05 * (X[:, :1] > 0)
    answer = Decay(1.0).predict(X)
    later = X[:, 0] > 0
    assert r2_scorer(Decay(1.0), X, y) == pytest.approx(r2_score(y[later], answer[later]))
    assert neg_nrmse_scorer(Decay(1.0), X, y) == pytest.approx(-nrmse(y[later], answer[later]))
    expected = persistence_skill(y[later], answer[later], X[later, 1:3])
    assert persistence_skill_scorer(Decay(1.0), X, y) == pytest.approx(expected)


@pytest.mark.parametrize("scorer", SCORERS)
def test_anchors_change_nothing(scorer):
    X, y, _ = decays(missing=True)
    later = X[:, 0] > 0
    assert scorer(Decay(1.0), X, y) == scorer(Decay(1.0), X[later], y[later])


def test_a_row_at_time_zero_that_is_not_x0_is_scored():
    X = np.array([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]])
    y = np.array([1.5, 1.0, 2.0])
    model = Ridge(alpha=0.0).fit(X, y)
    assert r2_scorer(model, X, y) == pytest.approx(r2_score(y, model.predict(X)))


@pytest.mark.parametrize("scorer", SCORERS)
def test_the_true_rate_scores_best_and_perfectly_with_missing_values(scorer):
    X, y, _ = decays(missing=True)
    assert scorer(Decay(0.7), X, y) == pytest.approx(0.0 if scorer is neg_nrmse_scorer else 1.0)
    assert scorer(Decay(0.7), X, y) > scorer(Decay(0.6), X, y)


@pytest.mark.parametrize("scorer", SCORERS)
def test_grid_search_over_groups_finds_the_true_rate_with_missing_values(scorer):
    X, y, groups = decays(missing=True)
    search = GridSearchCV(
        Decay(), {"rate": [0.4, 0.7, 1.0]}, scoring=scorer, cv=GroupKFold(3), refit=False, error_score="raise"
    )
    search.fit(X, y, groups=groups)
    assert search.best_params_ == {"rate": 0.7}


def test_several_scorers_in_one_cross_validation():
    X, y, groups = decays(missing=True)
    scoring = {"nrmse": neg_nrmse_scorer, "r2": r2_scorer, "skill": persistence_skill_scorer}
    found = cross_validate(Decay(), X, y, groups=groups, cv=GroupKFold(3), scoring=scoring, error_score="raise")
    assert all(found[f"test_{name}"].shape == (3,) for name in scoring)


@pytest.mark.parametrize("scorer", SCORERS)
def test_scorers_survive_pickling(scorer):
    X, y, _ = decays()
    again = pickle.loads(pickle.dumps(scorer))
    assert again == scorer
    assert again(Decay(1.0), X, y) == scorer(Decay(1.0), X, y)


@pytest.mark.parametrize("scorer", SCORERS)
def test_data_frames_score_like_arrays(scorer):
    X, y, _ = decays()
    frames = pd.DataFrame(X, columns=["t", "a_0", "b_0", "u"]), pd.DataFrame(y, columns=["a", "b"])
    assert scorer(Decay(1.0), *frames) == scorer(Decay(1.0), X, y)


@pytest.mark.parametrize("scorer", SCORERS)
def test_weight_zero_equals_leaving_a_row_out(scorer):
    X, y, _ = decays()
    weight = (np.arange(len(y)) % 3 > 0).astype(float)
    kept = weight > 0
    assert scorer(Decay(1.0), X, y, sample_weight=weight) == pytest.approx(scorer(Decay(1.0), X[kept], y[kept]))


def test_weights_reach_the_scorer_through_metadata_routing():
    X, y, _ = decays()
    weight = np.linspace(0.0, 1.0, len(y))
    half = np.arange(len(y)) < 18
    with sklearn.config_context(enable_metadata_routing=True):
        found = cross_validate(
            Decay().set_fit_request(sample_weight=False),
            X,
            y,
            params={"sample_weight": weight},
            cv=[(np.flatnonzero(half), np.flatnonzero(~half))],
            scoring=r2_scorer.set_score_request(sample_weight=True),
            error_score="raise",
        )
    assert found["test_score"][0] == r2_scorer(Decay(), X[~half], y[~half], sample_weight=weight[~half])
    assert found["test_score"][0] != r2_scorer(Decay(), X[~half], y[~half])


def test_time_only_is_scored_and_has_no_persistence():
    X = np.arange(5.0)[:, None]
    y = np.array([0.0, 1.0, np.nan, 3.0, 4.0])
    model = Ridge(alpha=0.0).fit(X[[0, 1]], y[[0, 1]])
    assert r2_scorer(model, X, y) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="columns 1 to d of X"):
        persistence_skill_scorer(model, X, y)


def test_bad_questions_are_refused_in_words():
    X, y, _ = decays()
    start = X[:, 0] == 0
    with pytest.raises(ValueError, match="all with t = 0 and y = x0"):
        r2_scorer(Decay(), X[start], y[start])
    with pytest.raises(ValueError, match="at least 1 \\+ d = 3 columns"):
        r2_scorer(Decay(), X[:, :2], y)
