"""Bad input is refused in words, before anything is trained.

Every message has three parts, in this order: what must hold, what was given, what to do. ``FIT``, ``CHOOSE``,
``ASK`` and ``BUILD`` are the tables; a new kind of bad input is one line.
"""

from __future__ import annotations

import functools
import re
import warnings

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GroupKFold

from skode import (
    GroupLasso,
    PathReg,
    PriorKnowledge,
    SparseNODERegressor,
    SparseNODERegressorCV,
    StabilitySelection,
    SteadyStates,
    estimators,
    from_trajectories,
    make_questions,
    model_selection,
    regularization_path,
)
from skode.scoring import neg_nrmse_scorer

MUST = re.compile(r"\b(must|should|needs?|allowed|requires?)\b", re.IGNORECASE)
GIVEN = re.compile(r"\bgot\b")
DO = (
    "Add Ask Build Call Check Choose Convert Drop Fill Fit Give Leave Lower Mark Name Pass Predict Raise Rename "
    "Reorder Replace Set Split Start Use Wrap"
).split()

T = np.linspace(0.0, 1.0, 7)
X0 = np.array([[1.0, 2.0], [0.5, 1.5], [2.0, 1.0]])
STATES = [np.column_stack([x[0] * np.exp(-T), x[1] * np.exp(-2 * T)]) for x in X0]
X, Y, GROUPS = from_trajectories(STATES, T)  # (21, 3), (21, 2)
FRAMES = from_trajectories([pd.DataFrame(s, columns=["prey", "fox"]) for s in STATES], T, inputs=np.arange(3.0))
N = len(X)
LONG = np.linspace(0.0, 9.0, 60)
WAVES = np.column_stack([np.sin(LONG), np.cos(LONG)])
COLUMNS = list(FRAMES.X.columns)


def three_parts(message):
    """Say which part of a message is missing, or nothing."""
    must, given = MUST.search(message), GIVEN.search(message)
    if not must:
        return "does not say what must hold"
    if not given or given.start() < must.start():
        return "does not say, after that, what was given"
    sentences = re.split(r"(?<=[.:)])\s+|\n", message[given.start() :].strip())
    if not any(sentence.split()[0].capitalize() in DO for sentence in sentences[1:] if sentence.strip()):
        return "does not end with what to do"
    return ""


def fit(X=X, y=Y, sample_weight=None, groups=None, steady_states=None, **options):
    estimator = SparseNODERegressor(**{"max_iter": 2, **options})
    return estimator.fit(X, y, sample_weight=sample_weight, groups=groups, steady_states=steady_states)


def changed(table, place, value):
    table = np.array(table, dtype=object if isinstance(value, str) else None)
    table[place] = value
    return table


def frame_fit(X=FRAMES.X, y=FRAMES.y, **options):
    return fit(X, y, **options)


def known(**options):
    rest = {name: value for name, value in options.items() if name not in PriorKnowledge.__dataclass_fields__}
    return fit(prior=PriorKnowledge(**{k: v for k, v in options.items() if k not in rest}), **rest)


def cv_fit(X=X, y=Y, groups=GROUPS, **options):
    return SparseNODERegressorCV(**{"max_iter": 2, **options}).fit(X, y, groups=groups)


def stable_fit(estimator=None, X=X, y=Y, **options):
    base = SparseNODERegressor(max_iter=2) if estimator is None else estimator
    return StabilitySelection(base, **options).fit(X, y)


def path_of(X=X, y=Y, **options):
    return regularization_path(X, y, **options)


def case(name, call, fragment, error=ValueError):
    return pytest.param(call, fragment, error, id=name)


ONES = np.ones((4, 2))
rest = SteadyStates

FIT = [
    # shapes
    case("X with one axis", lambda: fit(X=X[:, 0]), "Expected 2D array, got 1D array"),
    case("X with three axes", lambda: fit(X=np.zeros((3, 7, 3))), r"got trajectories \(3 axes\)"),
    case("X is a list of tables", lambda: fit(X=STATES, y=[T] * 3), "from_trajectories"),
    case("X is a scalar", lambda: fit(X=3.0), "Expected 2D array, got scalar"),
    case("X is sparse", lambda: fit(X=sp.csr_array(X)), "Sparse data was passed", TypeError),
    case("no rows", lambda: fit(X=X[:0], y=Y[:0]), r"0 sample\(s\)"),
    case("no columns in X", lambda: fit(X=X[:, :0]), r"0 feature\(s\)"),
    case("one row", lambda: fit(X=X[1:2], y=Y[1:2]), r"1 sample\(s\)"),
    case("y missing", lambda: fit(y=None), "requires y to be passed, but the target y is None"),
    case("y with three axes", lambda: fit(y=Y[:, :, None]), "dim 3"),
    case("y without columns", lambda: fit(y=Y[:, :0]), r"0 feature\(s\)"),
    case("y of another length", lambda: fit(y=Y[:-1]), "got 21 and 20"),
    case("states and times", lambda: fit(X=WAVES, y=LONG), "look like times"),
    case("states and times of one variable", lambda: fit(X=WAVES[:, :1], y=LONG), "look like times"),
    # widths
    case("too few columns for the states", lambda: fit(X=X[:, :2]), r"1 \+ d \+ m = 3 \+ m columns .* got 2"),
    case("no velocities for order 2", lambda: fit(order=2), r"1 \+ 2 d \+ m = 5 .* got 3"),
    case(
        "no start time",
        lambda: fit(time_dependent=True, time_origin="input"),
        r"= 4 \+ m columns .*the start time.* got 3",
    ),
    case("no start time, time only", lambda: fit(X=X[:, :1], time_dependent=True, time_origin="input"), "got 1"),
    # kinds of values
    case("words in X", lambda: fit(X=changed(X, (0, 1), "high")), "could not convert string to float"),
    case("words in y", lambda: fit(y=changed(Y, (0, 1), "high")), "could not convert string to float"),
    case("complex X", lambda: fit(X=X + 1j), "Complex data not supported"),
    case("complex y", lambda: fit(y=Y + 1j), "Complex data not supported"),
    case("dates as times", lambda: frame_fit(X=FRAMES.X.assign(t=pd.Timestamp("2020-01-01"))), "X must be", TypeError),
    case("objects in X", lambda: fit(X=np.array([[{}, 1, 2]] * N, dtype=object)), "X must be", TypeError),
    case(
        "NaN in X",
        lambda: fit(X=changed(X, (2, 1), np.nan)),
        "X must be finite.* got NaN in 1 places, the first in row",
    ),
    case("inf in X", lambda: fit(X=changed(X, (2, 1), np.inf)), "X must be finite.* got infinity in 1 places"),
    case("inf in y", lambda: fit(y=changed(Y, (2, 1), -np.inf)), "row 2, variable 'x1'"),
    case("variable never observed", lambda: fit(y=changed(Y, np.s_[:, 1], np.nan)), "only NaN for x1"),
    case(
        "variable never observed, named",
        lambda: frame_fit(y=FRAMES.y.assign(fox=np.nan)),
        "only NaN for fox",
    ),
    case(
        "observed only where the weight is 0",
        lambda: fit(y=changed(Y, np.s_[3:, 0], np.nan), sample_weight=np.arange(N) > 5),
        "only NaN for x0",
    ),
    case("no time passes", lambda: fit(X=changed(X, np.s_[:, 0], 0.0)), "all at t = 0"),
    case("one time, time only", lambda: fit(X=np.ones((N, 1))), "all at t = 0"),
    # names
    case(
        "initial states in another order",
        lambda: frame_fit(X=FRAMES.X[[COLUMNS[0], COLUMNS[2], COLUMNS[1], COLUMNS[3]]]),
        "stand in the order of y's columns",
    ),
    case(
        "columns of y in another order",
        lambda: frame_fit(y=FRAMES.y[["fox", "prey"]]),
        "in the order of y's columns",
    ),
    case("an input named as a state", lambda: frame_fit(X=FRAMES.X.rename(columns={"u0": "fox"})), "got fox more"),
    case(
        "a state named as time",
        lambda: fit(y=pd.DataFrame(Y, columns=["t", "a"]), time_dependent=True),
        "got t",
    ),
    case("a state twice", lambda: fit(y=pd.DataFrame(Y, columns=["a", "a"])), "unique column names"),
    case("names and numbers", lambda: frame_fit(X=FRAMES.X.rename(columns={"u0": 3})), "Feature names", TypeError),
    # weights
    case("weights of another length", lambda: fit(sample_weight=np.ones(5)), r"shape \(21,\); got shape \(5,\)"),
    case("weights with two axes", lambda: fit(sample_weight=np.ones((N, 2))), r"got shape \(21, 2\)"),
    case("negative weight", lambda: fit(sample_weight=changed(np.ones(N), 3, -2.0)), "got -2"),
    case("missing weight", lambda: fit(sample_weight=changed(np.ones(N), 3, np.nan)), "got nan"),
    case("all weights zero", lambda: fit(sample_weight=np.zeros(N)), "only zeros"),
    case("words as weights", lambda: fit(sample_weight=["a"] * N), "sample_weight must be numbers"),
    # groups
    case("empty groups", lambda: fit(groups=[]), r"got shape \(0,\)"),
    case("groups of another length", lambda: fit(groups=GROUPS[:-1]), r"got shape \(20,\)"),
    case("groups with two axes", lambda: fit(groups=GROUPS[:, None]), r"got shape \(21, 1\)"),
    case("missing group", lambda: fit(groups=changed(GROUPS.astype(float), 0, np.nan)), "missing labels"),
    case("missing group among words", lambda: fit(groups=pd.Series(["a", None] + ["b"] * 19)), "missing labels"),
    case("numbers and words as groups", lambda: fit(groups=np.array(["a"] + [1] * 20, object)), "got int, str"),
    case("ragged groups", lambda: fit(groups=[[0, 1], [2]]), "groups must"),
    # constructor: numbers
    case("alpha negative", lambda: fit(alpha=-0.1), "alpha must be a finite number >= 0; got -0.1"),
    case("alpha nan", lambda: fit(alpha=np.nan), "alpha must be a finite number >= 0; got nan"),
    case("alpha inf", lambda: fit(alpha=np.inf), "alpha must be a finite number >= 0; got inf"),
    case("alpha a word", lambda: fit(alpha="strong"), "got 'strong'", TypeError),
    case("alpha a list", lambda: fit(alpha=[0.1]), r"got \[0.1\]", TypeError),
    case("alpha None", lambda: fit(alpha=None), "got None", TypeError),
    case("max_iter zero", lambda: fit(max_iter=0), "max_iter must be an integer >= 1; got 0"),
    case("max_iter a fraction", lambda: fit(max_iter=10.5), "got 10.5", TypeError),
    case("max_iter True", lambda: fit(max_iter=True), "got True", TypeError),
    case("learning_rate zero", lambda: fit(learning_rate=0), "learning_rate must be a finite number > 0; got 0"),
    case("tol negative", lambda: fit(tol=-1e-3), "tol must be a finite number >= 0; got -0.001"),
    case("weight_decay negative", lambda: fit(weight_decay=-1.0), "weight_decay must be a finite number >= 0"),
    case("n_bilinear negative", lambda: fit(n_bilinear=-1), "n_bilinear must be an integer >= 0; got -1"),
    case("n_bilinear in one network", lambda: fit(penalty="l1", field="shared", n_bilinear=2), "got n_bilinear=2"),
    case("verbose negative", lambda: fit(verbose=-1), "verbose must be an integer >= 0"),
    case("hidden layers none", lambda: fit(hidden_layer_sizes=()), r"non-empty sequence.* got \(\)"),
    case("hidden layer of zero", lambda: fit(hidden_layer_sizes=(16, 0)), r"got \(16, 0\)"),
    case("hidden layer a fraction", lambda: fit(hidden_layer_sizes=[8.5]), r"got \[8.5\]"),
    case("hidden layer a word", lambda: fit(hidden_layer_sizes="wide"), "got 'wide'"),
    case("hidden layers nested", lambda: fit(hidden_layer_sizes=((4,), 2)), r"got \(\(4,\), 2\)"),
    case("hidden layer True", lambda: fit(hidden_layer_sizes=True), "got True"),
    case("random_state a word", lambda: fit(random_state="lucky"), "random_state must be"),
    # constructor: names
    *(
        case(f"unknown {name}", functools.partial(fit, **{name: "nonesuch"}), f"{name} must be .*got 'nonesuch'")
        for name in (
            "penalty",
            "field",
            "activation",
            "method",
            "training",
            "initial_state",
            "initial_velocity",
            "time_origin",
            "dtype",
            "device",
        )
    ),
    case("unknown gates", lambda: fit(penalty="l0", gates="nonesuch"), "gates must be .*got 'nonesuch'"),
    case("order three", lambda: fit(order=3), "order must be one of 1, 2; got 3"),
    case("order True", lambda: fit(order=True), "got True"),
    case("time_dependent a word", lambda: fit(time_dependent="yes"), "True or False; got 'yes'", TypeError),
    case("refit a number", lambda: fit(refit=1), "True or False; got 1", TypeError),
    case("device of another kind", lambda: fit(device="meta"), "of type 'cpu' or 'cuda'; got 'meta'"),
    case("penalty a class", lambda: fit(penalty=GroupLasso), "not a class", TypeError),
    case("penalty a number", lambda: fit(penalty=1), "got 1", TypeError),
    # constructor: combinations
    case("additive of order 2", lambda: fit(field="additive", order=2), "order=1, whose selection is a convex problem"),
    case("additive with another penalty", lambda: fit(field="additive", penalty="l0"), "penalty='group_lasso'"),
    case("additive in time", lambda: fit(field="additive", time_dependent=True), "got time_dependent=True"),
    case("additive without refit", lambda: fit(field="additive", refit=False), "got refit=False"),
    case("group lasso in one network", lambda: fit(field="shared"), "of kind 'per_target'; got kind 'shared'"),
    case("lassonet in one network", lambda: fit(penalty="lassonet", field="shared"), "got kind 'shared'"),
    case("unit gates per target", lambda: fit(penalty="pathreg", gates="unit"), "got gates='unit'"),
    case("edge gates in one network", lambda: fit(penalty="l0", gates="edge", field="shared"), "got gates='edge'"),
    case("gates on group lasso", lambda: fit(gates="edge"), "got gates='edge'"),
    case("gates without penalty", lambda: fit(penalty=None, gates="edge"), "got gates='edge'"),
    case("gates named twice", lambda: fit(penalty=PathReg(gates="edge"), gates="weight"), "got gates='weight'"),
    case("a clock that is not read", lambda: fit(time_origin="input"), "got time_dependent=False"),
    # prior knowledge
    *(
        case(f"prior: {name}", functools.partial(known, **prior), fragment, error)
        for name, prior, fragment, error in [
            ("shape", {"allowed": np.ones((2, 3))}, r"shape \(2, 2\).* got shape \(2, 3\)", ValueError),
            ("one axis", {"signs": [1, -1]}, r"got shape \(2,\)", ValueError),
            ("NaN", {"weights": [[1, np.nan], [1, 1]]}, "prior.weights must be finite; got 1 missing", ValueError),
            ("words", {"forbidden": [["a", "b"]] * 2}, "prior.forbidden must be numbers", ValueError),
            ("not 0 or 1", {"allowed": [[0.5, 1], [1, 1]]}, "only 0 and 1; got 0.5", ValueError),
            ("negative weight", {"weights": [[-1, 1], [1, 1]]}, "only factors >= 0; got -1", ValueError),
            ("sign 2", {"signs": [[2, 0], [0, 0]]}, r"only \+1, -1 and 0; got 2", ValueError),
            ("required and forbidden", {"required": np.eye(2), "forbidden": np.eye(2)}, "first x0 -> x0", ValueError),
            (
                "required, not allowed",
                {"required": [[0, 1], [0, 0]], "allowed": np.eye(2)},
                "got 1 such edges, the first x1 -> x0",
                ValueError,
            ),
            ("unknown target", {"signs": pd.DataFrame([[1]], ["fox"], ["x0"])}, "got 'fox', not a var", ValueError),
            ("unknown source", {"signs": pd.DataFrame([[1]], ["x0"], ["fox"])}, "x0, x1; got 'fox'", ValueError),
            ("a name twice", {"signs": pd.DataFrame([[1, -1]], ["x0"], ["x1", "x1"])}, "once in its col", ValueError),
            ("unknown node", {"allowed": nx.DiGraph([("x0", "fox")])}, "got 'fox'", ValueError),
            ("undirected", {"allowed": nx.Graph([("x0", "x1")])}, "DiGraph; got a Graph", TypeError),
            ("both signs", {"signs": nx.MultiDiGraph([("x0", "x1", {"sign": 1})])}, "got a MultiDiGraph", TypeError),
            ("edge without sign", {"signs": nx.DiGraph([("x0", "x1")])}, "'sign' on every edge; got none", ValueError),
            ("edge without weight", {"weights": nx.DiGraph([("x0", "x1")])}, "'weight' on every edge", ValueError),
        ]
    ),
    case("prior: a graph alone", lambda: fit(prior=nx.DiGraph()), "None or PriorKnowledge; got DiGraph", TypeError),
    case("prior: a class", lambda: fit(prior=PriorKnowledge), "None or PriorKnowledge; got type", TypeError),
    case(
        "prior: an input is driven",
        lambda: frame_fit(prior=PriorKnowledge(required=nx.DiGraph([("fox", "u0")]))),
        "got 'u0', no state, and only states can be driven",
    ),
    case("prior: one network", lambda: known(forbidden=np.eye(2), penalty="l1", field="shared"), "got field='shared'"),
    case("prior: signs, two layers", lambda: known(signs=np.eye(2), hidden_layer_sizes=(4, 4)), r"got .*\(4, 4\)"),
    case("prior: signs, not monotone", lambda: known(signs=np.eye(2), activation="silu"), "got activation='silu'"),
    case("prior: weights without price", lambda: known(weights=np.eye(2), penalty=None), "got penalty=None"),
    case(
        "prior: required, weight gates",
        lambda: known(required=np.eye(2), penalty="l0", gates="weight"),
        "got gates on single weights",
    ),
    # steady states
    case("steady states as an array", lambda: fit(steady_states=ONES), "got ndarray", TypeError),
    case("steady states with one axis", lambda: fit(steady_states=rest(ONES[0])), r"shape \(n_rows, 2\); got"),
    case("steady states of another width", lambda: fit(steady_states=rest(np.ones((4, 3)))), r"got shape \(4, 3\)"),
    case("missing steady state", lambda: fit(steady_states=rest([[1, np.nan]])), "missing or infinite"),
    case("words as steady states", lambda: fit(steady_states=rest([["a", "b"]])), "states must be"),
    case("clamps of another shape", lambda: fit(steady_states=rest(ONES, [[True, False]])), r"got \(1, 2\)"),
    case("steady states with needless inputs", lambda: fit(steady_states=rest(ONES, None, ONES)), r"got \(4, 2\)"),
    case("steady states without inputs", lambda: frame_fit(steady_states=rest(ONES)), r"shape \(4, 1\)"),
    case("missing steady input", lambda: frame_fit(steady_states=rest(ONES, None, [[np.nan]] * 4)), "inputs must be"),
    case(
        "steady states under a clock",
        lambda: fit(steady_states=rest(ONES), time_dependent=True),
        "got time_dependent=True",
    ),
]

ASK = [
    case("predict: width", lambda m, f: m.predict(X[:, :2]), "X has 2 features"),
    case("predict: one axis", lambda m, f: m.predict(X[0]), "Expected 2D array"),
    case("predict: three axes", lambda m, f: m.predict(np.zeros((2, 7, 3))), "X must be"),
    case(
        "predict: NaN",
        lambda m, f: m.predict(changed(X, (0, 0), np.nan)),
        "X must be finite.* got NaN in 1 places, the first in row",
    ),
    case(
        "predict: inf",
        lambda m, f: m.predict(changed(X, (0, 0), np.inf)),
        "X must be finite.* got infinity in 1 places",
    ),
    case("predict: no rows", lambda m, f: m.predict(X[:0]), r"0 sample\(s\)"),
    case("predict: words", lambda m, f: m.predict(changed(X, (0, 0), "soon")), "could not convert"),
    case("predict: names in another order", lambda m, f: f.predict(FRAMES.X[COLUMNS[::-1]]), "feature names should"),
    case("predict: other names", lambda m, f: f.predict(FRAMES.X.rename(columns={"u0": "v"})), "feature names should"),
    case("score: length", lambda m, f: m.score(X, Y[:-1]), "y_true"),
    case("score: width", lambda m, f: m.score(X, Y[:, :1]), "y_true"),
    case("score: inf", lambda m, f: m.score(X, changed(Y, (0, 0), np.inf)), "y_true"),
    case("score: negative weights", lambda m, f: m.score(X, Y, -np.ones(N)), "sample_weight"),
    case("simulate: too few states", lambda m, f: m.simulate([[1.0]], T), "x0 .* got 1"),
    case("simulate: too many states", lambda m, f: m.simulate(np.ones((1, 3)), T), "got 3"),
    case("simulate: three axes", lambda m, f: m.simulate(np.ones((1, 1, 2)), T), r"got shape \(1, 1, 2\)"),
    case("simulate: NaN in x0", lambda m, f: m.simulate([1.0, np.nan], T), "x0 .*finite"),
    case("simulate: NaN in t", lambda m, f: m.simulate([1.0, 1.0], [0, np.nan]), "t must be finite"),
    case("simulate: words", lambda m, f: m.simulate(["a", "b"], T), "x0 must be numbers"),
    case("simulate: times of other trajectories", lambda m, f: m.simulate(X0, np.ones((2, 4))), "3 trajectories"),
    case(
        "simulate: ragged times",
        lambda m, f: m.simulate(X0, [T, T[:3], T]),
        "t must be numbers, as many in each row",
    ),
    case("simulate: no times", lambda m, f: m.simulate(X0, []), "t must"),
    case("simulate: needless inputs", lambda m, f: m.simulate(X0, T, [1.0]), "got 3"),
    case("simulate: no inputs", lambda m, f: f.simulate(X0, T), "got 2"),
    case("simulate: inputs of other trajectories", lambda m, f: f.simulate(X0, T, np.ones((2, 1))), r"got \(2, 1\)"),
    case("simulate: NaN in inputs", lambda m, f: f.simulate(X0, T, [np.nan]), "inputs .*finite"),
    case("slope: width", lambda m, f: m.predict_derivative(np.ones((4, 3))), r"got \(4, 3\)"),
    case("slope: three axes", lambda m, f: m.predict_derivative(np.ones((4, 2, 1))), r"got \(4, 2, 1\)"),
    case("slope: NaN", lambda m, f: m.predict_derivative([[1.0, np.nan]]), "states must be finite"),
    case("slope: words", lambda m, f: m.predict_derivative([["a", "b"]]), "states must be numbers"),
    case("slope: no inputs", lambda m, f: f.predict_derivative(ONES), r"\(4, 1\) or \(1,\); got none"),
    case("slope: needless inputs", lambda m, f: m.predict_derivative(ONES, [1.0]), "inputs must"),
    case("slope: inputs of other samples", lambda m, f: f.predict_derivative(ONES, np.ones((3, 1))), r"got \(3, 1\)"),
    case("slope: needless time", lambda m, f: m.predict_derivative(ONES, t=0.0), "time_dependent=False"),
    case("graph: negative threshold", lambda m, f: m.get_dependency_graph(-0.1), "got -0.1"),
    case("graph: threshold nan", lambda m, f: m.get_dependency_graph(np.nan), "got nan"),
    case("graph: threshold a word", lambda m, f: m.get_dependency_graph("low"), "got 'low'", TypeError),
    case("graph: negative max_edges", lambda m, f: m.get_dependency_graph(max_edges=-1), "got -1"),
    case("graph: max_edges a fraction", lambda m, f: m.get_dependency_graph(max_edges=1.5), "got 1.5"),
    case("scorer: only anchors", lambda m, f: neg_nrmse_scorer(m, X[::7], Y[::7]), "rows that ask"),
]

CHOOSE = [
    case("dense", lambda: cv_fit(penalty=None), "exact zeros .* got penalty='none'|got penalty=None"),
    case("no exact zeros", lambda: cv_fit(penalty="l1"), "exact zeros .* got penalty='l1'"),
    case("one alpha", lambda: cv_fit(alphas=[0.1]), r"at least two different .* got \[0.1\]"),
    case("one alpha twice", lambda: cv_fit(alphas=[0.1, 0.1]), "at least two different"),
    case("no alphas", lambda: cv_fit(alphas=[]), "at least two different"),
    case("negative alpha", lambda: cv_fit(alphas=[0.1, -0.1]), ">= 0"),
    case("alphas with two axes", lambda: cv_fit(alphas=np.ones((2, 2)) * [[0.1], [0.2]]), "on one axis"),
    case("alpha nan", lambda: cv_fit(alphas=[0.1, np.nan]), "alphas must be finite"),
    case("words as alphas", lambda: cv_fit(alphas=["strong", "weak"]), "alphas must be numbers"),
    case("alphas a number", lambda: cv_fit(alphas=0.1), "at least two different"),
    case("one level", lambda: cv_fit(n_alphas=1), "n_alphas must be an integer >= 2; got 1"),
    case("levels a fraction", lambda: cv_fit(n_alphas=2.5), "got 2.5", TypeError),
    case("levels True", lambda: cv_fit(n_alphas=True), "got True", TypeError),
    case("one fold", lambda: cv_fit(cv=1), "cv must be at least 2 folds.* got 1"),
    case("folds True", lambda: cv_fit(cv=True), "got True"),
    case("folds a fraction", lambda: cv_fit(cv=2.5), "got 2.5"),
    case("folds a word", lambda: cv_fit(cv="many"), "cv must be an integer, a splitter"),
    case("no splits", lambda: cv_fit(cv=[]), "cv must be an integer, a splitter"),
    case("a split of three", lambda: cv_fit(cv=[([1], [2], [3])]), "cv must be an integer, a splitter"),
    case("rows that are not there", lambda: cv_fit(cv=[(range(15), [99])]), "cv must be an integer, a splitter"),
    case("a split without a test row", lambda: cv_fit(cv=[(range(15), [])]), "cv must be an integer, a splitter"),
    case("a split that tests x0", lambda: cv_fit(cv=[(range(1, 21), [0])]), "no row with t > 0"),
    case("a splitter by groups without groups", lambda: cv_fit(groups=None, cv=GroupKFold(2)), "cv must be"),
    case("unknown rule", lambda: cv_fit(selection="worst"), "selection must be .* got 'worst'"),
    case("negative edges", lambda: cv_fit(selection=-1), "selection must be .* got -1"),
    case("rule True", lambda: cv_fit(selection=True), "got True"),
    case("rule None", lambda: cv_fit(selection=None), "got None"),
    case("choice: prior", lambda: cv_fit(prior=PriorKnowledge(signs=np.eye(3))), r"got shape \(3, 3\)"),
    case("stable: not ours", lambda: stable_fit(LinearRegression()), "got LinearRegression", TypeError),
    case("stable: a class", lambda: stable_fit(SparseNODERegressor), "got the class Sparse", TypeError),
    case("stable: no pairs", lambda: stable_fit(n_pairs=0), "n_pairs must be an integer >= 1; got 0"),
    case("stable: half a pair", lambda: stable_fit(n_pairs=0.5), "got 0.5", TypeError),
    case("stable: threshold 0", lambda: stable_fit(threshold=0.0), "threshold must be .* got 0.0"),
    case("stable: threshold nan", lambda: stable_fit(threshold=np.nan), "threshold must be .* got nan"),
    case("stable: threshold in percent", lambda: stable_fit(threshold=70), "threshold must be .* got 70"),
    case("stable: threshold a word", lambda: stable_fit(threshold="high"), "got 'high'", TypeError),
    case("stable: data", lambda: stable_fit(X=X[:, :2]), r"1 \+ d \+ m = 3 \+ m columns .* got 2"),
    case("stable: settings inside", lambda: stable_fit(SparseNODERegressor(alpha=-1.0)), "alpha must be .* got -1"),
    case("path: one alpha", lambda: path_of(alphas=[0.1]), "at least two different"),
    case("path: another estimator", lambda: path_of(estimator=SparseNODERegressorCV()), "got Sparse", TypeError),
    case("path: data", lambda: path_of(X=X[:, :2]), r"1 \+ d \+ m = 3 \+ m columns .* got 2"),
]

BUILD = [
    case("no trajectories", lambda: from_trajectories([], []), "at least one trajectory"),
    case("lengths differ", lambda: from_trajectories(STATES, T[:-1]), "one entry per observation"),
    case("widths differ", lambda: from_trajectories([ONES, ONES[:, :1]], [T[:4]] * 2), "one d for all"),
    case("names differ", lambda: from_trajectories([FRAMES.y, FRAMES.y[["fox", "prey"]]], [range(N)] * 2), "same col"),
    case("NaN in times", lambda: from_trajectories(STATES, changed(T, 0, np.nan)), "times must be finite"),
    case("unknown start", lambda: from_trajectories(STATES, T, start="last"), "got 'last'"),
    case("start zero", lambda: from_trajectories(STATES, T, start=0), "got 0"),
    case("unknown missing_start", lambda: from_trajectories(STATES, T, missing_start="?"), "got '?'"),
    case("inputs of other trajectories", lambda: from_trajectories(STATES, T, inputs=np.ones((2, 1))), "3 traj"),
    case("NaN in inputs", lambda: from_trajectories(STATES, T, inputs=np.full((3, 1), np.nan)), "inputs must be"),
    case("questions: inputs", lambda: make_questions(X0, T, np.ones((2, 1))), r"\(3, m\)"),
]


@pytest.fixture
def nothing_is_trained(monkeypatch):
    def trained(*arguments, **options):
        pytest.fail("training began")

    monkeypatch.setattr(estimators, "fit_batch", trained)
    monkeypatch.setattr(model_selection, "select", trained)


@pytest.fixture(scope="module")
def fitted():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return fit(), frame_fit()


def refuses(call, fragment, error):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(error, match=re.compile(fragment, re.DOTALL)) as caught:
            call()
    assert type(caught.value) is error
    assert not three_parts(str(caught.value)), f"the message {three_parts(str(caught.value))}: {caught.value}"


@pytest.mark.usefixtures("nothing_is_trained")
@pytest.mark.parametrize(("call", "fragment", "error"), FIT)
def test_fit_refuses(call, fragment, error):
    refuses(call, fragment, error)


@pytest.mark.usefixtures("nothing_is_trained")
@pytest.mark.parametrize(("call", "fragment", "error"), CHOOSE)
def test_choosing_refuses(call, fragment, error):
    refuses(call, fragment, error)


@pytest.mark.parametrize(("call", "fragment", "error"), ASK)
def test_a_fitted_model_refuses(fitted, call, fragment, error):
    refuses(functools.partial(call, *fitted), fragment, error)


@pytest.mark.parametrize(("call", "fragment", "error"), BUILD)
def test_builders_refuse(call, fragment, error):
    refuses(call, fragment, error)


@pytest.mark.usefixtures("nothing_is_trained")
@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is here")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_cuda_that_is_absent_is_refused(device):
    refuses(lambda: fit(device=device), "sees no CUDA device", ValueError)
