"""Forecasts of held-out windows against the choice that folds made."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from skode import SparseNODERegressorCV, _selection, from_trajectories
from skode._fit import set_up
from skode._layout import Layout
from skode._overrule import overruled
from skode._trajectories import as_trajectories

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

# x0 decays and drives x1; x2 stands apart.
SYSTEM = np.array([[-0.5, 0.0, 0.0], [1.2, -0.8, 0.0], [0.0, 0.0, -0.3]])
TRUTH = SYSTEM != 0
WITHOUT, WITH_ONE_MORE = TRUTH.copy(), TRUTH.copy()
WITHOUT[1, 0] = False
WITH_ONE_MORE[2, 0] = True
TIMES = np.linspace(0.0, 4.0, 13)
RNG = np.random.default_rng(0)
STARTS = RNG.uniform(0.5, 3.0, (40, 3)) * RNG.choice([-1.0, 1.0], (40, 3))
CLEAN = np.array([[expm(SYSTEM * t) @ x for t in TIMES] for x in STARTS])
X, Y, GROUPS = from_trajectories(list(CLEAN + 0.02 * RNG.standard_normal(CLEAN.shape)), TIMES)


def mask_of(field, edges):
    """1 where a weight of an open edge stands, as a frozen support has it."""
    columns = torch.as_tensor(edges, dtype=torch.float64).unsqueeze(-2)
    drawn = field.init(torch.Generator().manual_seed(0), n_models=1, dtype=torch.float64, device=torch.device("cpu"))
    return drawn, {
        name: torch.ones_like(value) * (columns if name in field.entries else 1.0) for name, value in drawn.items()
    }


@pytest.fixture(scope="module")
def parts():
    spec = SparseNODERegressorCV(field="per_target", dtype="float64", max_iter=600)._specify()
    trajectories = as_trajectories(X, Y, layout=Layout(n_states=3, n_inputs=0, order=1), groups=GROUPS)
    return set_up(trajectories, spec, None), spec


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        (WITHOUT, WITH_ONE_MORE, [False, True, False]),
        (TRUTH, WITHOUT, [False, False, False]),
        (TRUTH, np.ones((3, 3), dtype=bool), [False, False, False]),
        (WITHOUT, WITHOUT, [False, False, False]),
    ],
    ids=["a true edge is missed", "a true edge is kept", "more edges are no better", "the same"],
)
def test_windows_overrule_only_where_a_true_edge_is_missed(parts, first, second, wanted):
    (_, dynamics, problem), spec = parts
    start, one = mask_of(dynamics.field, first)
    other = mask_of(dynamics.field, second)[1]
    assert overruled(dynamics, problem, start, one, other, spec, 0).tolist() == wanted


def fit(**options):
    quick = {"alphas": [1e3, 0.3, 0.02, 1e-6], "max_iter": 100, "cv": 2, "random_state": 0}
    return SparseNODERegressorCV(**quick, **options).fit(X, Y, groups=GROUPS)


def test_a_target_that_is_overruled_has_the_support_of_the_plain_strength_and_loses_nothing_of_it(monkeypatch):
    monkeypatch.setattr(_selection, "overruled", lambda *_: np.array([False, True, True]))
    monkeypatch.setattr(_selection, "law_instead", lambda *_: None)
    monkeypatch.setattr(_selection, "edge_confidence", lambda folds, mask, edges, *_: np.where(edges, 0.1, 0.0))
    model = fit()
    assert (model.target_alphas_[1:] == 0.02).all()
    plain = model.path_[2]["dependency_matrix"] > 0
    np.testing.assert_array_equal(model.dependency_matrix_[1:] > 0, plain[1:])
    # What windows did not decide may be pruned.
    chosen = model.path_[list(model.alphas_).index(model.target_alphas_[0])]["dependency_matrix"][0] > 0
    assert (model.dependency_matrix_[0] > 0).sum() == chosen.sum() - 1


@pytest.mark.parametrize(
    "options", [{"selection": "best"}, {"selection": "ebic"}, {"selection": 5}, {"field": "shared", "penalty": "l0"}]
)
def test_other_rules_and_shared_weights_are_not_overruled(monkeypatch, options):
    asked = []
    monkeypatch.setattr(_selection, "overruled", lambda *arguments: asked.append(arguments))
    fit(**options)
    assert asked == []
