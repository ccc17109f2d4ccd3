"""How sure an edge is, from folds of the cross-validated estimator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import expm
from scipy.stats import ttest_1samp

from skode import PriorKnowledge, SparseNODERegressorCV, from_trajectories
from skode._confidence import probability, prune
from skode.fields import PerTargetField

pytestmark = [
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
    pytest.mark.filterwarnings("ignore::skode.exceptions.IdentifiabilityWarning"),
]

# x0 decays and drives x1; x2 stands apart.
SYSTEM = np.array([[-0.5, 0.0, 0.0], [1.2, -0.8, 0.0], [0.0, 0.0, -0.3]])
TRUTH = SYSTEM != 0
TIMES = np.linspace(0.0, 4.0, 13)
QUICK = {"n_alphas": 3, "max_iter": 300, "tol": 1.0, "random_state": 0}


def fit(n_trajectories=8, noise=0.05, rest=0, **options):
    rng = np.random.default_rng(0)
    starts = rng.uniform(0.5, 3.0, (n_trajectories, 3)) * rng.choice([-1.0, 1.0], (n_trajectories, 3))
    clean = np.array([[expm(SYSTEM * t) @ x for t in TIMES] for x in starts])
    states = clean + noise * rng.standard_normal(clean.shape)
    X, y, groups = from_trajectories(list(states), TIMES)
    return SparseNODERegressorCV(**{**QUICK, **options}).fit(X, y, groups=groups)


def test_probability_is_that_of_a_one_sided_t_test():
    rises = np.random.default_rng(0).standard_normal((9, 4)) + [0.0, 1.0, -1.0, 0.3]
    wanted = 1 - ttest_1samp(rises, 0.0, alternative="greater").pvalue
    np.testing.assert_allclose(probability(rises), wanted, rtol=1e-10)


def test_without_evidence_nothing_is_sure():
    assert (probability(np.ones((3, 2))) == 0.5).all()
    assert (probability(np.zeros((20, 2))) == 0.5).all()


def test_true_edges_are_sure_and_others_are_none():
    model = fit()
    assert (model.confidence_[TRUTH] > 0.9).all()
    np.testing.assert_array_equal(model.confidence_ > 0, model.dependency_matrix_ > 0)
    graph = model.get_dependency_graph()
    assert graph["x0"]["x1"]["confidence"] == model.confidence_[1, 0]


def test_an_edge_without_effect_is_doubted_though_it_is_required():
    false = np.zeros((3, 3))
    false[0, 2] = false[2, 0] = false[2, 1] = 1
    model = fit(noise=0.2, prior=PriorKnowledge(required=false))
    assert (model.dependency_matrix_[false == 1] > 0).all()
    assert model.confidence_[false == 1].mean() < 0.6 < 0.9 < model.confidence_[1, 0]


def test_targets_that_share_weights_and_data_that_are_not_split_are_not_sure():
    shared = fit(penalty="l0", field="shared", max_iter=30)
    assert set(np.unique(shared.confidence_)) <= {0.0, 0.5}
    with pytest.warns(UserWarning, match="Choosing by cross-validation needs"):
        short = SparseNODERegressorCV(**QUICK).fit([[0.0, 1.0], [1.0, 1.0], [2.0, 1.0]], [[1.0], [0.5], [0.25]])
    assert short.confidence_.max() <= 0.5


def test_a_target_loses_its_least_certain_edge_only_if_that_is_below_one_half():
    field = PerTargetField(3, 3, (2,), "tanh", (0, 1, 2))
    drawn = field.init(torch.Generator().manual_seed(0), n_models=1, dtype=torch.float64, device=torch.device("cpu"))
    edges = torch.tensor([[1.0, 1, 1], [0, 1, 1], [0, 0, 0]], dtype=torch.float64)
    mask = {
        name: torch.ones_like(value) * (edges.unsqueeze(-2) if name in field.entries else 1.0)
        for name, value in drawn.items()
    }
    confidence = np.array([[0.3, 0.4, 0.9], [0.0, 0.6, 0.95], [0.0, 0.0, 0.0]])
    left = field.paths(prune(field, mask, confidence))[0] > 0
    assert left.tolist() == [[False, True, True], [False, True, True], [False, False, False]]
