"""Prior knowledge of edges: what it promises holds in the fitted field, in every estimator."""

from __future__ import annotations

import pickle

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.linalg import expm
from sklearn.base import clone
from sklearn.metrics import f1_score

from skode import PriorKnowledge, SparseNODERegressor, SparseNODERegressorCV, StabilitySelection, from_trajectories
from skode._constraints import Constraints
from skode.fields import PerTargetField
from skode.prior import edge_rules

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

# a decays and drives b; c stands apart.
SYSTEM = np.array([[-0.5, 0.0, 0.0], [1.2, -0.8, 0.0], [0.0, 0.0, -0.3]])
NAMES = ["a", "b", "c"]
TIMES = np.linspace(0.0, 4.0, 13)
QUICK = {"max_iter": 200, "tol": 1.0, "random_state": 0, "dtype": "float64"}


def linear_data(noise=0.02):
    rng = np.random.default_rng(0)
    starts = rng.uniform(0.5, 3.0, (8, 3)) * rng.choice([-1.0, 1.0], (8, 3))
    clean = np.array([[expm(SYSTEM * t) @ x for t in TIMES] for x in starts])
    states = clean + noise * rng.standard_normal(clean.shape)
    return from_trajectories([pd.DataFrame(s, columns=NAMES) for s in states], TIMES)


X, Y, GROUPS = linear_data()


def fit(prior, estimator=SparseNODERegressor, **options):
    return estimator(prior=prior, **{**QUICK, **options}).fit(X, Y, groups=GROUPS)


def edges(*pairs, **attributes):
    graph = nx.DiGraph()
    for source, target in pairs:
        graph.add_edge(source, target, **attributes)
    return graph


def derivatives(model, states, step):
    """Central differences of the fitted field.  # (sample, target, source)"""
    columns = []
    for j in range(3):
        shift = step * np.eye(3)[j]
        change = model.predict_derivative(states + shift) - model.predict_derivative(states - shift)
        columns.append(change / (2 * step))
    return np.stack(columns, axis=-1)


FAR = np.random.default_rng(1).uniform(-100.0, 100.0, (400, 3))  # the data lie within 3


# --- closed edges ----------------------------------------------------------------------------------------------

CUT = PriorKnowledge(forbidden=edges(("a", "b")))
KINDS = {
    "group lasso": {},
    "dense": {"penalty": None},
    "no refit": {"refit": False},
    "through the solver": {"training": "trajectory", "max_iter": 30},
    "l1": {"penalty": "l1"},
    "l0": {"penalty": "l0"},
    "weight gates": {"penalty": "pathreg", "gates": "weight"},
    "lassonet": {"penalty": "lassonet"},
    "two layers": {"hidden_layer_sizes": (6, 6)},
    "bilinear": {"n_bilinear": 2},
    "bilinear on offer": {"penalty": "none", "n_bilinear": "auto"},
}


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
def test_a_forbidden_true_edge_has_no_path(options):
    model = fit(CUT, **{"max_iter": 60, **options})
    assert model.dependency_matrix_[1, 0] == 0 and model.dependency_scores_[1, 0] == 0
    other = FAR.copy()
    other[:, 0] = 7.0
    np.testing.assert_array_equal(model.predict_derivative(other)[:, 1], model.predict_derivative(FAR)[:, 1])
    assert not model.get_dependency_graph().has_edge("a", "b")


def test_closed_edges_stay_closed_in_the_path_the_folds_and_the_halves():
    model = fit(CUT, SparseNODERegressorCV, n_alphas=3, max_iter=60)
    assert all(level["dependency_matrix"][1, 0] == 0 for level in model.path_)
    assert model.dependency_matrix_[1, 0] == 0 and model.dependency_scores_[1, 0] == 0
    base = SparseNODERegressor(prior=CUT, **{**QUICK, "max_iter": 40})
    stable = StabilitySelection(base, n_pairs=1, random_state=0).fit(X, Y, groups=GROUPS)
    assert stable.confidence_[1, 0] == 0 and stable.dependency_scores_[1, 0] == 0


def test_allowing_some_edges_forbids_the_others_but_no_decay():
    model = fit(PriorKnowledge(allowed=edges(("a", "b"), ("c", "b"))), penalty=None, max_iter=60)
    open_edges = model.dependency_matrix_ > 0
    # Of the self edges nothing was said, and every pair of a, b, c was spoken of.
    np.testing.assert_array_equal(open_edges, [[1, 0, 0], [1, 1, 1], [0, 0, 1]])


def test_a_part_of_the_names_leaves_the_others_free():
    allowed = pd.DataFrame([[0]], index=["b"], columns=["a"])
    free = fit(PriorKnowledge(allowed=allowed), penalty=None, max_iter=60).dependency_matrix_ > 0
    np.testing.assert_array_equal(free, [[1, 1, 1], [0, 1, 1], [1, 1, 1]])


# --- required edges --------------------------------------------------------------------------------------------

KEPT = PriorKnowledge(required=edges(("c", "a")))


@pytest.mark.parametrize("penalty", ["group_lasso", "lassonet", "l0", "pathreg"])
@pytest.mark.parametrize("options", [{}, {"refit": False}, {"training": "trajectory", "max_iter": 20}])
def test_a_required_edge_stays_above_the_largest_strength(penalty, options):
    plain = fit(None, penalty=penalty, max_iter=40)
    model = fit(KEPT, penalty=penalty, **{"max_iter": 80, **options, "alpha": 2 * plain.alpha_max_})
    assert model.alpha >= model.alpha_max_
    np.testing.assert_array_equal(model.dependency_matrix_ > 0, [[0, 0, 1], [0, 0, 0], [0, 0, 0]])


def test_a_required_edge_stays_in_the_path_and_in_the_choice():
    model = fit(KEPT, SparseNODERegressorCV, alphas=[100.0, 0.05], max_iter=60, selection=0)
    assert [level["dependency_matrix"][0, 2] > 0 for level in model.path_] == [True, True]
    assert model.dependency_matrix_[0, 2] > 0


# --- weights ---------------------------------------------------------------------------------------------------


def test_the_dearer_an_edge_the_weaker():
    sizes = [
        fit(PriorKnowledge(weights=edges(("a", "b"), weight=w)), alpha=0.1, refit=False).dependency_matrix_[1, 0]
        for w in (0.0, 1.0, 4.0, 1000.0)
    ]
    assert sizes[0] > sizes[1] > sizes[2] >= sizes[3] == 0


def test_weights_of_one_change_nothing():
    ones = fit(PriorKnowledge(weights=np.ones((3, 3))), max_iter=60)
    np.testing.assert_array_equal(ones.dependency_matrix_, fit(None, max_iter=60).dependency_matrix_)


def test_common_weights_are_a_larger_strength():
    options = {"refit": False, "training": "trajectory", "max_iter": 30}
    dear = fit(PriorKnowledge(weights=np.full((3, 3), 2.0)), alpha=0.02, **options)
    plain = fit(None, alpha=0.04, **options)
    np.testing.assert_allclose(dear.dependency_matrix_, plain.dependency_matrix_, rtol=1e-6, atol=1e-9)
    assert dear.alpha_max_ == pytest.approx(plain.alpha_max_ / 2)


@pytest.mark.parametrize("penalty", ["l1", "l0", "pathreg"])
def test_smooth_prices_are_multiplied(penalty):
    from skode.penalties import resolve_penalty

    field = PerTargetField(2, 2, (3,), "tanh", (0, 1))
    weights = field.init(torch.Generator().manual_seed(0), n_models=1, dtype=torch.float64, device=torch.device("cpu"))
    price = resolve_penalty(penalty)
    params = price.init(field, weights)
    whole = price.smooth(field, params)
    parts = [price.smooth(field, params, prices=torch.eye(4, dtype=torch.float64)[k].reshape(2, 2)) for k in range(4)]
    torch.testing.assert_close(sum(parts), whole)
    torch.testing.assert_close(price.smooth(field, params, prices=torch.full((2, 2), 3.0)), 3 * whole)


# --- signs -----------------------------------------------------------------------------------------------------

SIGNS = np.array([[-1, 0, 0], [1, -1, 0], [0, 1, -1]])
WRONG = -SIGNS


@pytest.mark.parametrize("signs", [SIGNS, WRONG], ids=["true", "wrong"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"penalty": None, "n_bilinear": 3},
        {"penalty": "l0", "activation": "softplus"},
        {"penalty": "lassonet", "refit": False, "activation": "relu"},
        {"penalty": "pathreg", "gates": "weight", "training": "trajectory", "max_iter": 30},
        {"dtype": "float32", "n_bilinear": "auto", "alpha": 0.0},
    ],
    ids=["group lasso", "bilinear", "l0", "lassonet", "pathreg", "single precision"],
)
def test_signs_hold_far_from_the_data(signs, options):
    model = fit(PriorKnowledge(signs=signs), **{"max_iter": 80, **options})
    for step in (1e-3, 1.0, 30.0):  # a monotone function has differences of one sign at any distance
        assert (derivatives(model, FAR, step) * signs >= -1e-9).all()
    assert (derivatives(model, 0.02 * FAR, 1e-3) * signs >= -1e-9).all()


def test_signs_hold_in_the_cross_validated_fit():
    model = fit(PriorKnowledge(signs=WRONG), SparseNODERegressorCV, n_alphas=2, max_iter=60)
    assert (derivatives(model, FAR, 1.0) * WRONG >= -1e-9).all()


def test_true_signs_cost_no_accuracy():
    free, signed = fit(None, max_iter=300), fit(PriorKnowledge(signs=SIGNS), max_iter=300)
    assert signed.score(X, Y) > free.score(X, Y) - 0.01 > 0.9
    assert signed.get_dependency_graph()["a"]["b"]["sign"] == 1


def test_projection_is_the_nearest_point_of_the_right_signs():
    rng = np.random.default_rng(3)
    field = PerTargetField(2, 2, (4,), "tanh", (0, 1), n_bilinear=1)
    weights = field.init(torch.Generator().manual_seed(1), n_models=2, dtype=torch.float64, device=torch.device("cpu"))
    weights["K"] = torch.as_tensor(rng.standard_normal(weights["K"].shape))
    signs = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    nothing = torch.zeros(2, 2, dtype=torch.bool)
    known = Constraints(nothing, nothing, torch.ones(2, 2, dtype=torch.float64), signs)
    before = {name: value.clone() for name, value in weights.items()}
    known.project(field, weights)
    turns = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    for name, allowed in (("W0", signs[:, None, :] * turns[:, None]), ("W1", turns), ("K", signs[:, None, :])):
        entry = before[name]
        nearest = torch.where(allowed > 0, entry.clamp_min(0), torch.where(allowed < 0, entry.clamp_max(0), entry))
        torch.testing.assert_close(weights[name], nearest)
    torch.testing.assert_close(weights["W0"][..., 1], before["W0"][..., 1])  # of the other source nothing is known
    assert not weights["P"][..., 0].any() and bool(weights["P"][..., 1].all())
    again = {name: value.clone() for name, value in weights.items()}
    known.project(field, again)
    assert all(torch.equal(again[name], weights[name]) for name in weights)


# --- forms -----------------------------------------------------------------------------------------------------


def test_array_frame_and_graph_agree_bit_for_bit():
    order = ["c", "a", "b"]
    frame = pd.DataFrame(0, index=NAMES, columns=NAMES)
    forbidden, required, signs = frame.copy(), frame.copy(), frame.copy()
    weights = frame + 1.0
    forbidden.loc["b", "c"] = required.loc["b", "a"] = signs.loc["b", "a"] = 1
    weights.loc["a", "b"] = 3.0
    frames = {"forbidden": forbidden, "required": required, "signs": signs, "weights": weights}
    arrays = {name: table.to_numpy() for name, table in frames.items()}
    mixed = {name: table.loc[order, order[::-1]] for name, table in frames.items()}
    graphs = {
        "forbidden": edges(("c", "b")),
        "required": edges(("a", "b")),
        "signs": edges(("a", "b"), sign=1),
        "weights": edges(("b", "a"), weight=3.0),
    }
    one, *others = (fit(PriorKnowledge(**form), max_iter=60) for form in (arrays, frames, mixed, graphs))
    for other in others:
        np.testing.assert_array_equal(one.dependency_matrix_, other.dependency_matrix_)
        np.testing.assert_array_equal(one.predict(X), other.predict(X))


def test_a_fitted_graph_serves_as_a_prior():
    found = fit(None, max_iter=300).get_dependency_graph()
    prior = PriorKnowledge(allowed=found, signs=found, weights=found)
    assert set(fit(prior, max_iter=60).get_dependency_graph().edges) <= set(found.edges) | {(n, n) for n in NAMES}


def test_inputs_and_time_are_sources():
    table = from_trajectories(
        [Y[GROUPS == g] for g in range(8)], TIMES, inputs=pd.DataFrame({"dose": np.linspace(0, 1, 8)})
    )
    prior = PriorKnowledge(forbidden=edges(("dose", "a"), ("t", "b")), required=edges(("t", "a")))
    model = SparseNODERegressor(prior=prior, penalty=None, time_dependent=True, **{**QUICK, "max_iter": 30})
    matrix = model.fit(table.X, table.y).dependency_matrix_
    assert matrix[0, 3] == matrix[1, 4] == 0 and matrix[0, 4] > 0 and matrix[1, 3] > 0


def test_second_order_rules_hold_for_positions_and_velocities():
    t = np.linspace(0, 6, 25)
    states = [np.column_stack([np.cos(t + p), np.sin(2 * t + p)]) for p in (0.0, 0.7, 1.9)]
    velocity = [np.column_stack([-np.sin(t + p), 2 * np.cos(2 * t + p)]) for p in (0.0, 0.7, 1.9)]
    table = from_trajectories(states, t, velocities=velocity)
    prior = PriorKnowledge(forbidden=[[0, 1], [0, 0]], signs=[[-1, 0], [0, 0]])
    model = SparseNODERegressor(prior=prior, order=2, **{**QUICK, "max_iter": 60}).fit(table.X, table.y)
    at = np.random.default_rng(0).uniform(-20, 20, (50, 4))
    moved = at.copy()
    moved[:, [1, 3]] += 5.0
    np.testing.assert_array_equal(model.predict_derivative(at)[:, 0], model.predict_derivative(moved)[:, 0])
    for column in (0, 2):
        higher = at.copy()
        higher[:, column] += 3.0
        assert (model.predict_derivative(higher)[:, 0] <= model.predict_derivative(at)[:, 0] + 1e-9).all()


def test_survives_clone_pickle_and_set_params_and_is_never_written_to():
    table = pd.DataFrame([[0, 1.0]], index=["b"], columns=["a", "c"])
    prior = PriorKnowledge(weights=table)
    before = table.copy()
    model = fit(prior, max_iter=20)
    assert model.prior is prior and model.get_params()["prior"] is prior
    pd.testing.assert_frame_equal(prior.weights, before)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    copied = clone(model)
    pd.testing.assert_frame_equal(copied.prior.weights, before)
    np.testing.assert_array_equal(copied.fit(X, Y, groups=GROUPS).predict(X), model.predict(X))
    assert clone(model).set_params(prior=None).prior is None


def test_no_prior_is_an_empty_prior():
    empty = fit(PriorKnowledge(), max_iter=30)
    np.testing.assert_array_equal(empty.predict(X), fit(None, max_iter=30).predict(X))
    rules = edge_rules(PriorKnowledge(), NAMES, NAMES)
    assert not rules.closed.any() and not rules.required.any() and (rules.prices == 1).all()


# --- what it is for --------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_correct_prior_helps_where_data_are_few():
    from skode.datasets import make_hill_network

    scores = []  # (network, without | with)
    for seed in range(3):
        system = make_hill_network(n_genes=8, n_trajectories=10, noise=0.1, random_state=seed)
        data = from_trajectories(system.states, system.times)
        off, rng = ~np.eye(8, dtype=bool), np.random.default_rng(seed)
        false = off & ~system.adjacency & (rng.random((8, 8)) < 0.5)
        some = system.adjacency & (rng.random((8, 8)) < 0.3)
        asked = off & ~false & ~some  # only what the prior did not say
        truth = system.adjacency[asked]
        models = [
            SparseNODERegressor(prior=known, random_state=0).fit(data.X, data.y, groups=data.groups)
            for known in (None, PriorKnowledge(forbidden=false, required=some))
        ]
        scores.append([f1_score(truth, model.dependency_matrix_[asked] > 0) for model in models])
    without, informed = np.mean(scores, axis=0)
    assert informed > without
