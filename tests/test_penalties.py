"""Penalties: one battery for every combination of the table, and an oracle for each definition."""

from __future__ import annotations

import copy
import itertools
import math
import pickle

import numpy as np
import pytest
import scipy.optimize
import torch

from skode._typing import Weights
from skode.fields import AbstractField, PerTargetField, SharedField
from skode.penalties import (
    COMPATIBILITY,
    L0,
    L1,
    PENALTIES,
    AbstractPenalty,
    GroupLasso,
    LassoNet,
    NoPenalty,
    PathReg,
    combinations,
    field_kind,
    resolve_gates,
    resolve_penalty,
)
from skode.penalties.gates import (
    BETA,
    CLOSED_LOG_ALPHA,
    GAMMA,
    OPEN_AT_LEAST,
    ZETA,
    deterministic_gate,
    open_probability,
    sampled_gate,
)
from skode.penalties.lassonet import hier_prox
from skode.solvers import prox_adam

VARIABLES = (0, 1, 2, 0, 3)
FIELDS: dict[str, tuple[AbstractField, ...]] = {
    "per_target": (
        PerTargetField(3, 5, (4,), "tanh", VARIABLES),
        PerTargetField(3, 5, (4, 2), "tanh", VARIABLES, n_bilinear=2),
    ),
    "shared": (SharedField(3, 5, (4,), "tanh", VARIABLES), SharedField(3, 5, (4, 3), "elu", VARIABLES)),
    "residual": (SharedField(3, 5, (4, 3), "tanh", VARIABLES, linear_skip=True),),
}


def build(name: str, gates: str | None) -> AbstractPenalty:
    return resolve_penalty(name, gates)


MEMBERS = [
    pytest.param(build(cell.penalty, cell.gates), field, id="-".join([*map(str, cell), str(k)]))
    for cell in combinations()
    for k, field in enumerate(FIELDS[cell.field])
]
GATED = [member for member in MEMBERS if isinstance(member.values[0], (L0, PathReg))]
PROXIMAL = [member for member in MEMBERS if isinstance(member.values[0], (GroupLasso, LassoNet))]


def draw(penalty: AbstractPenalty, field: AbstractField, *, n_models: int = 1, seed: int = 0) -> Weights:
    """Parameters in general position: weights, and gates from closed to open."""
    generator = torch.Generator().manual_seed(seed)
    weights = field.init(generator, n_models=n_models, dtype=torch.float64, device=torch.device("cpu"))
    return {
        name: tensor + (1.5 if "log_alpha" in name else 0.4) * randn(tensor.shape, generator)
        for name, tensor in penalty.init(field, weights).items()
    }


def randn(shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def ones_like(params: Weights, value: float = 1.0) -> Weights:
    return {name: torch.full_like(tensor, value) for name, tensor in params.items()}


def copied(params: Weights) -> Weights:
    return {name: tensor.clone() for name, tensor in params.items()}


def one(params: Weights, model: int) -> Weights:
    return {name: tensor[model : model + 1].clone() for name, tensor in params.items()}


# --- every member


@pytest.mark.parametrize(("penalty", "field"), MEMBERS)
def test_value_is_finite_and_not_negative_per_model(penalty: AbstractPenalty, field: AbstractField) -> None:
    penalty.check(field)
    value = penalty.value(field, draw(penalty, field, n_models=3))
    assert value.shape == (3,)
    assert bool(torch.isfinite(value).all())
    assert bool((value >= 0).all())


@pytest.mark.parametrize(("penalty", "field"), MEMBERS)
def test_gradient_of_the_smooth_part_equals_a_central_difference(
    penalty: AbstractPenalty, field: AbstractField
) -> None:
    params = draw(penalty, field)
    leaves = {name: tensor.requires_grad_(True) for name, tensor in params.items()}
    smooth = penalty.smooth(field, leaves)
    if smooth is None:
        assert isinstance(penalty, (NoPenalty, GroupLasso, LassoNet))
        return
    gradients = torch.autograd.grad(smooth.sum(), list(leaves.values()), materialize_grads=True, allow_unused=True)
    generator, step = torch.Generator().manual_seed(5), 1e-7
    direction = {name: randn(tensor.shape, generator) for name, tensor in params.items()}
    with torch.no_grad():
        ends = [
            penalty.smooth(field, {name: params[name] + sign * step * direction[name] for name in params})
            for sign in (1, -1)
        ]
    assert ends[0] is not None
    assert ends[1] is not None
    expected = (ends[0] - ends[1]) / (2 * step)
    found = sum((gradient * direction[name]).sum() for name, gradient in zip(params, gradients, strict=True))
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(("penalty", "field"), MEMBERS)
def test_batch_of_models_equals_models_one_by_one(penalty: AbstractPenalty, field: AbstractField) -> None:
    params = draw(penalty, field, n_models=3)
    noise = penalty.noise(field, params, torch.Generator().manual_seed(2))
    effective = penalty.weights(field, params, noise)
    generator = torch.Generator().manual_seed(3)
    metric = {name: 1 + randn(tensor.shape, generator).square() for name, tensor in params.items()}
    alpha = torch.tensor([0.1, 1.0, 3.0], dtype=torch.float64)
    adaptive = randn((3, field.n_targets, field.n_variables), generator).abs()
    pressed = copied(params)
    penalty.prox(field, pressed, alpha=alpha, metric=metric, adaptive=adaptive)
    for model in range(3):
        single = one(params, model)
        own = penalty.noise(field, single, torch.Generator().manual_seed(2))
        torch.testing.assert_close(penalty.value(field, params)[model : model + 1], penalty.value(field, single))
        for name, tensor in penalty.weights(field, single, own).items():
            torch.testing.assert_close(tensor, effective[name][model : model + 1])
        penalty.prox(
            field,
            single,
            alpha=alpha[model : model + 1],
            metric=one(metric, model),
            adaptive=adaptive[model : model + 1],
        )
        for name, tensor in single.items():
            torch.testing.assert_close(tensor, pressed[name][model : model + 1])


@pytest.mark.parametrize(("penalty", "field"), MEMBERS)
def test_effective_weights_are_those_of_the_field_and_depend_on_nothing_but_parameters(
    penalty: AbstractPenalty, field: AbstractField
) -> None:
    params = draw(penalty, field)
    plain = field.init(torch.Generator(), n_models=1, dtype=torch.float64, device=torch.device("cpu"))
    first, second = penalty.weights(field, params), penalty.weights(field, params)
    assert {name: tensor.shape for name, tensor in first.items()} == {
        name: tensor.shape for name, tensor in plain.items()
    }
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(("penalty", "field"), MEMBERS)
def test_penalties_copy_pickle_and_compare(penalty: AbstractPenalty, field: AbstractField) -> None:
    assert copy.deepcopy(penalty) == penalty
    assert pickle.loads(pickle.dumps(penalty)) == penalty
    assert eval(repr(penalty), dict(vars(__import__("skode.penalties", fromlist=["L0"])))) == penalty


@pytest.mark.parametrize(("penalty", "field"), MEMBERS)
def test_nothing_beats_the_empty_model_at_zero_alpha(penalty: AbstractPenalty, field: AbstractField) -> None:
    alpha = penalty.zero_alpha(field)
    assert alpha > 0
    if math.isinf(alpha):
        assert isinstance(penalty, NoPenalty) or "P" in field.entries
        return
    params = draw(penalty, field, n_models=40)
    z = randn((1, 50, 5), torch.Generator().manual_seed(4))
    z = z / z.square().mean(1, keepdim=True).sqrt()
    for shrink in (1e-3, 0.03, 0.3, 1.0):
        scaled = {
            name: tensor if "log_alpha" in name or name.startswith("b") else shrink * tensor
            for name, tensor in params.items()
        }
        # A huge inverse step: the map enforces its constraints and shrinks next to nothing.
        penalty.prox(
            field,
            scaled,
            alpha=torch.zeros(40, dtype=torch.float64),
            metric=ones_like(scaled, 1e9),
            adaptive=None,
        )
        slopes = field(penalty.weights(field, scaled), z)
        centred = slopes - slopes.mean(1, keepdim=True)
        size = centred.square().mean(1, keepdim=True)
        # The best case for the model: its slopes are parallel to the targets, which have unit variance.
        targets = centred / size.clamp_min(1e-300).sqrt()
        losses = (targets - centred).square().mean(1).sum(-1)
        assert bool((losses + alpha * penalty.value(field, scaled) >= field.n_targets - 1e-9).all())


@pytest.mark.parametrize(
    ("penalty", "field"),
    # The deep bilinear field is left out: it needs more iterations than a unit test has.
    [member for member in MEMBERS if member.values[0].exact_zeros and "P" not in member.values[1].entries],
)
def test_pressing_cuts_exactly_the_sources_that_nothing_depends_on(
    penalty: AbstractPenalty, field: AbstractField
) -> None:
    generator = torch.Generator().manual_seed(6)
    z = randn((1, 120, 5), generator)
    slopes = torch.stack([z[0, :, 1] * c for c in (1.0, -1.0, 0.8)], dim=-1)
    slopes = slopes / slopes.square().mean(0).sqrt()
    params = penalty.init(field, field.init(generator, n_models=1, dtype=torch.float64, device=torch.device("cpu")))
    # The network of LassoNet pays M times less than the skip for the same weight.
    alpha = torch.tensor([0.6 if penalty.name == "lassonet" else 0.15], dtype=torch.float64)

    def loss(params: Weights, iteration: int) -> torch.Tensor:
        noise = penalty.noise(field, params, generator) if iteration < 500 else None
        fit = (field(penalty.weights(field, params, noise), z) - slopes).square().mean(1).sum(-1)
        smooth = penalty.smooth(field, params)
        return fit if smooth is None or iteration < 100 else fit + alpha * smooth

    def prox(params: Weights, metric: Weights) -> None:
        penalty.prox(field, params, alpha=alpha, metric=metric, adaptive=None)

    solved = prox_adam(loss, params, n_iter=600, learning_rate=0.05, prox=prox)
    paths = field.paths(penalty.weights(field, solved.params))[0]
    assert bool((paths[:, 1] > 0).all())
    assert bool((paths[:, [0, 2, 3, 4]] == 0).all())


# --- gates

LEVELS = torch.tensor([-4.0, -2.0, 0.0, 1.4, 3.0], dtype=torch.float64)


def test_open_probability_and_mean_agree_with_monte_carlo() -> None:
    n_draws = 400_000
    uniform = torch.rand(n_draws, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gates = sampled_gate(LEVELS, uniform)
    share = (gates > 0).double().mean(0)
    torch.testing.assert_close(share, open_probability(LEVELS), rtol=0, atol=5 * 0.5 / n_draws**0.5)
    # E[z] is the integral of P(z > t), and the distribution function of the stretched gate is known.
    t = torch.linspace(0, 1, 2001, dtype=torch.float64)[:, None]
    survival = torch.sigmoid(LEVELS - BETA * torch.logit((t - GAMMA) / (ZETA - GAMMA)))
    mean = torch.trapezoid(survival, t, dim=0)
    torch.testing.assert_close(gates.mean(0), mean, rtol=0, atol=5 * 0.5 / n_draws**0.5)


def test_deterministic_gate_is_zero_exactly_where_the_sigmoid_is_at_most_a_twelfth() -> None:
    assert math.isclose(1 / (1 + math.exp(-CLOSED_LOG_ALPHA)), 1 / 12)
    log_alpha = CLOSED_LOG_ALPHA + torch.tensor([-3.0, -1e-9, 1e-9, 3.0, 9.0], dtype=torch.float64)
    gate = deterministic_gate(log_alpha)
    assert (gate > 0).tolist() == [False, False, True, True, True]
    assert float(gate[-1]) == 1.0
    edge = open_probability(torch.tensor(CLOSED_LOG_ALPHA, dtype=torch.float64))
    assert float(edge) == pytest.approx(OPEN_AT_LEAST)


@pytest.mark.parametrize(("penalty", "field"), GATED)
def test_noise_is_reproducible_shared_by_models_and_moves_the_weights(
    penalty: AbstractPenalty, field: AbstractField
) -> None:
    params = draw(penalty, field, n_models=2)
    first, second, other = (penalty.noise(field, params, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first is not None
    assert second is not None
    assert other is not None
    assert set(first) == {name for name in params if name.endswith("log_alpha")}
    for name, uniform in first.items():
        assert torch.equal(uniform, second[name])
        assert not torch.equal(uniform, other[name])
        assert uniform.shape == (1, *params[name].shape[1:])
    sampled = penalty.weights(field, params, first)
    assert any(not torch.equal(sampled[name], penalty.weights(field, params)[name]) for name in sampled)


@pytest.mark.parametrize(("penalty", "field"), GATED)
def test_closing_all_gates_closes_all_paths_and_costs_nothing(penalty: AbstractPenalty, field: AbstractField) -> None:
    params = {
        name: torch.full_like(tensor, -60.0) if "log_alpha" in name else tensor
        for name, tensor in draw(penalty, field).items()
    }
    assert bool((field.paths(penalty.weights(field, params)) == 0).all())
    assert float(penalty.value(field, params)) < 1e-20


@pytest.mark.parametrize(("penalty", "field"), GATED)
def test_a_fully_open_edge_costs_one(penalty: AbstractPenalty, field: AbstractField) -> None:
    params = {
        name: torch.full_like(tensor, 60.0) if "log_alpha" in name else 0 * tensor
        for name, tensor in draw(penalty, field).items()
    }
    assert float(penalty.value(field, params)) == pytest.approx(field.n_targets * field.n_variables)


def test_edge_gates_make_l0_the_expected_number_of_open_edges() -> None:
    field, penalty = FIELDS["per_target"][1], L0()
    params = draw(penalty, field)
    edges = params["edge.log_alpha"].squeeze(-2)
    torch.testing.assert_close(penalty.value(field, params), open_probability(edges).sum((-2, -1)))
    closed = params["edge.log_alpha"].squeeze(-2) <= CLOSED_LOG_ALPHA
    assert bool(closed.any())
    torch.testing.assert_close(
        field.paths(penalty.weights(field, params)) == 0, field.to_sources(closed.double()).bool()
    )


def test_unit_gates_multiply_columns_and_their_products_have_rank_one() -> None:
    field, penalty = FIELDS["shared"][1], PathReg(gates="unit")
    params = draw(penalty, field)
    gated = penalty.weights(field, params)
    for name in field.chain:
        column = deterministic_gate(params[f"{name}.log_alpha"])
        torch.testing.assert_close(gated[name], params[name] * column)
    share = penalty.layout(field).open_share(field, params)[0]
    assert int(torch.linalg.matrix_rank(share)) == 1


# --- paths by enumeration


def enumerate_paths(field: AbstractField, tensors: dict[str, np.ndarray], target: int, source: int) -> list[float]:
    """Product of the entries along every single path from one source to one target."""
    own = {name: tensor[target] if field.per_target else tensor for name, tensor in tensors.items()}
    row = 0 if field.per_target else target
    products = []
    for units in itertools.product(*(range(width) for width in field.hidden)):
        nodes = (source, *units, row)
        steps = zip(field.chain, nodes[:-1], nodes[1:], strict=True)
        products.append(math.prod(own[name][end, start] for name, start, end in steps))
    if "K" in own:
        products.append(own["K"][row, source])
    if "P" in own:
        for q, k in itertools.product(range(own["P"].shape[0]), range(field.n_sources)):
            products.append(own["P"][q, source] * own["R"][q, k])
            products.append(own["R"][q, source] * own["P"][q, k])
    return [float(product) for product in products]


def matrices(field: AbstractField, params: Weights) -> dict[str, np.ndarray]:
    names = {*field.chain, *field.entries}
    return {name: tensor[0].numpy() for name, tensor in params.items() if name in names}


@pytest.mark.parametrize("field", [field for fields in FIELDS.values() for field in fields], ids=str)
def test_l1_is_the_sum_over_all_paths_of_products_of_absolute_weights(field: AbstractField) -> None:
    params = draw(L1(), field)
    tensors = {name: abs(tensor) for name, tensor in matrices(field, params).items()}
    expected = sum(
        sum(enumerate_paths(field, tensors, target, source))
        for target in range(field.n_targets)
        for source in range(field.n_sources)
    )
    assert float(L1().value(field, params)) == pytest.approx(expected)


@pytest.mark.parametrize(("penalty", "field"), [member for member in GATED if isinstance(member.values[0], PathReg)])
def test_open_share_is_the_mean_over_paths_of_products_of_open_probabilities(
    penalty: PathReg, field: AbstractField
) -> None:
    params = draw(penalty, field)
    layout = penalty.layout(field)
    share = layout.open_share(field, params)[0].numpy()
    gated = {name: tensor.clone() for name, tensor in params.items() if name in {*field.chain, *field.entries}}
    for name, tensor in gated.items():
        if layout.kind == "edge":
            continue
        tensor.copy_(open_probability(params[f"{name}.log_alpha"]).expand_as(tensor))
    for target, variable in itertools.product(range(field.n_targets), range(field.n_variables)):
        if layout.kind == "edge":
            expected = float(open_probability(params["edge.log_alpha"][0, target, 0, variable]))
        else:
            sources = [s for s, v in enumerate(field.variable_of_source) if v == variable]
            tensors = {name: tensor[0].numpy() for name, tensor in gated.items()}
            paths = [p for s in sources for p in enumerate_paths(field, tensors, target, s)]
            expected = float(np.mean(paths))
        assert share[target, variable] == pytest.approx(expected)


def test_pathreg_adds_the_l1_term_of_gated_weights() -> None:
    field = FIELDS["shared"][1]
    params = draw(PathReg(), field)
    plain, weighted = PathReg(l1_weight=0.0), PathReg(l1_weight=3.0)
    extra = weighted.value(field, params) - plain.value(field, params)
    torch.testing.assert_close(extra, 3 * L1().value(field, weighted.weights(field, params)))


# --- proximal maps


@pytest.mark.parametrize(("metric", "alpha"), [(1.0, 0.4), (0.5, 0.3), (4.0, 2.0)])
@pytest.mark.parametrize("field", FIELDS["per_target"], ids=str)
def test_group_lasso_prox_minimises_its_own_objective(field: AbstractField, metric: float, alpha: float) -> None:
    penalty = GroupLasso(readout_bound=math.inf)
    params = draw(penalty, field)
    adaptive = 0.2 + randn((1, 3, 4), torch.Generator().manual_seed(1)).square()
    pressed = copied(params)
    penalty.prox(
        field,
        pressed,
        alpha=torch.tensor([alpha], dtype=torch.float64),
        metric=ones_like(params, metric),
        adaptive=adaptive,
    )
    sources = np.array(field.variable_of_source)
    for target, variable in itertools.product(range(3), range(4)):

        def group(tensors: Weights, target: int = target, variable: int = variable) -> np.ndarray:
            columns = [tensors[name][0, target].numpy()[:, sources == variable] for name in field.entries]
            return np.concatenate([column.ravel() for column in columns])

        start, found = group(params), group(pressed)
        price = alpha * float(adaptive[0, target, variable])

        def objective(w: np.ndarray, start: np.ndarray = start, price: float = price) -> float:
            return 0.5 * metric * float(((w - start) ** 2).sum()) + price * float(np.linalg.norm(w))

        best = min(
            scipy.optimize.minimize(objective, x0, method="BFGS", options={"gtol": 1e-9}).fun
            for x0 in (start, 0.5 * start, 1e-3 * start)
        )
        assert objective(found) <= min(best, objective(0 * start)) + 1e-9
    untouched = set(params) - set(field.entries)
    assert all(torch.equal(pressed[name], params[name]) for name in untouched)


def test_group_lasso_step_is_the_root_mean_square_of_inverse_steps() -> None:
    field, penalty = FIELDS["per_target"][0], GroupLasso(readout_bound=math.inf)
    params = draw(penalty, field)
    metric = {name: 1 + tensor.square() for name, tensor in params.items()}
    pressed = copied(params)
    penalty.prox(field, pressed, alpha=torch.tensor([0.1]), metric=metric, adaptive=None)
    entries = torch.cat([metric["W0"][0, 2][:, [0, 3]], metric["K"][0, 2][:, [0, 3]]])
    shrunk = penalty.norms(field, params)[0, 2, 0] - 0.1 / entries.square().mean().sqrt()
    torch.testing.assert_close(penalty.norms(field, pressed)[0, 2, 0], shrunk)


def test_group_lasso_clips_later_layers_and_leaves_biases() -> None:
    field = FIELDS["per_target"][1]
    params = {name: 5 * tensor for name, tensor in draw(GroupLasso(), field).items()}
    pressed = copied(params)
    GroupLasso(readout_bound=0.7).prox(field, pressed, alpha=torch.zeros(1), metric=ones_like(params), adaptive=None)
    for name, tensor in params.items():
        expected = tensor.clamp(-0.7, 0.7) if name in field.chain[1:] else tensor
        assert torch.equal(pressed[name], expected)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("n_targets", "M"), [(1, 10.0), (1, 0.7), (3, 0.3), (3, 2.0)])
def test_hierarchical_prox_minimises_its_own_objective(seed: int, n_targets: int, M: float) -> None:
    rng = np.random.default_rng(seed)
    skip, inner, price = rng.normal(size=n_targets), rng.normal(size=4), float(rng.exponential())
    b, W = hier_prox(torch.tensor(skip), torch.tensor(inner), price=torch.tensor(price).double(), M=M)

    def objective(x: np.ndarray) -> float:
        b, W = x[:n_targets], x[n_targets:]
        gap = ((b - skip) ** 2).sum() + ((W - inner) ** 2).sum()
        return 0.5 * float(gap) + price * float(np.linalg.norm(b))

    def slack(x: np.ndarray) -> np.ndarray:
        return M * np.linalg.norm(x[:n_targets]) - np.abs(x[n_targets:])

    found = np.concatenate([b.numpy(), W.numpy()])
    assert slack(found).min() >= -1e-12
    assert objective(found) <= objective(0 * found) + 1e-12
    for _ in range(6):
        start = rng.normal(size=found.size)
        start[n_targets:] *= M * np.linalg.norm(start[:n_targets]) / np.abs(start[n_targets:]).max()
        solution = scipy.optimize.minimize(objective, start, method="SLSQP", constraints={"type": "ineq", "fun": slack})
        if slack(solution.x).min() >= -1e-9:
            assert objective(found) <= solution.fun + 1e-6


def test_hierarchical_prox_with_a_zero_skip_still_minimises_over_the_norm() -> None:
    inner, M, price = torch.tensor([3.0, -1.0, 0.2], dtype=torch.float64), 0.8, 0.3
    b, W = hier_prox(torch.zeros(2, dtype=torch.float64), inner, price=torch.tensor(price).double(), M=M)

    def objective(norm: float) -> float:
        clipped = inner.clamp(-M * norm, M * norm)
        return 0.5 * norm**2 + 0.5 * float((clipped - inner).square().sum()) + price * norm

    best = scipy.optimize.minimize_scalar(objective, bounds=(0, 5), method="bounded", options={"xatol": 1e-10})
    assert float(b.norm()) == pytest.approx(best.x, abs=1e-5)
    torch.testing.assert_close(W, inner.clamp(-M * float(b.norm()), M * float(b.norm())))


@pytest.mark.parametrize("field", [*FIELDS["per_target"], *FIELDS["residual"]], ids=str)
def test_lassonet_lets_the_network_see_a_source_only_as_far_as_the_skip_does(field: AbstractField) -> None:
    penalty = LassoNet(M=1.5)
    params = draw(penalty, field, n_models=2)
    penalty.prox(
        field,
        params,
        alpha=torch.tensor([0.5, 10.0], dtype=torch.float64),
        metric=ones_like(params),
        adaptive=None,
    )
    norms = params["K"].norm(dim=-2, keepdim=True)
    for name in set(field.entries) - {"K"}:
        assert bool((params[name].abs() <= 1.5 * norms + 1e-12).all())
    assert bool((norms == 0).any())
    assert bool((norms > 0).any())


def test_lassonet_without_hierarchy_is_the_lasso_on_the_skip() -> None:
    field, penalty = FIELDS["per_target"][0], LassoNet(M=0.0)
    params = draw(penalty, field)
    expected = params["K"].sign() * (params["K"].abs() - 0.2).clamp_min(0)
    penalty.prox(field, params, alpha=torch.tensor([0.2]).double(), metric=ones_like(params), adaptive=None)
    torch.testing.assert_close(params["K"], expected)
    assert bool((params["W0"] == 0).all())


@pytest.mark.parametrize(("penalty", "field"), PROXIMAL)
def test_alpha_limits_of_proximal_maps(penalty: AbstractPenalty, field: AbstractField) -> None:
    params = draw(penalty, field)
    penalty.prox(field, params, alpha=torch.tensor([0.0]), metric=ones_like(params), adaptive=None)
    feasible = copied(params)
    penalty.prox(field, params, alpha=torch.tensor([0.0]), metric=ones_like(params), adaptive=None)
    for name, tensor in params.items():
        torch.testing.assert_close(tensor, feasible[name])
    penalty.prox(field, params, alpha=torch.tensor([1e6]), metric=ones_like(params), adaptive=None)
    assert bool((field.paths(params) == 0).all())
    assert float(penalty.value(field, params)) == 0.0
    penalty.prox(field, params, alpha=torch.tensor([1.0]), metric=ones_like(params), adaptive=None)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in params.values())


@pytest.mark.parametrize(("penalty", "field"), PROXIMAL)
def test_critical_alpha_is_where_the_first_edge_leaves_zero(penalty: AbstractPenalty, field: AbstractField) -> None:
    gradient = draw(penalty, field, n_models=3, seed=8)
    critical = penalty.critical_alpha(field, {name: gradient[name] for name in field.entries})
    for factor, empty in ((1.001, True), (0.999, False)):
        step = {name: -tensor for name, tensor in gradient.items()}
        penalty.prox(field, step, alpha=factor * critical, metric=ones_like(step), adaptive=None)
        assert ((penalty.value(field, step) == 0) == empty).tolist() == [True] * 3


@pytest.mark.parametrize(("penalty", "field"), [member for member in MEMBERS if member not in PROXIMAL])
def test_critical_alpha_is_zero_alpha_without_a_proximal_map(penalty: AbstractPenalty, field: AbstractField) -> None:
    gradient = {name: tensor for name, tensor in draw(penalty, field).items() if name in field.entries}
    assert penalty.critical_alpha(field, gradient).tolist() == [penalty.zero_alpha(field)]


@pytest.mark.parametrize(("penalty", "field"), PROXIMAL)
def test_an_adaptive_factor_presses_its_own_edge(penalty: AbstractPenalty, field: AbstractField) -> None:
    params = draw(penalty, field)
    adaptive = torch.zeros(1, 3, 4, dtype=torch.float64)
    rows = slice(1, 2) if field.per_target else slice(None)
    adaptive[:, rows, 2] = 1e6
    penalty.prox(field, params, alpha=torch.tensor([1.0]), metric=ones_like(params), adaptive=adaptive)
    cut = field.by_variable(field.paths(params)) == 0
    assert torch.equal(cut, adaptive > 0)


# --- names and combinations


def test_the_table_and_the_registry_know_the_same_penalties() -> None:
    assert set(COMPATIBILITY) == set(PENALTIES)
    assert {name: cls().name for name, cls in PENALTIES.items()} == {name: name for name in PENALTIES}
    assert all(field_kind(field) == kind for kind, fields in FIELDS.items() for field in fields)


@pytest.mark.parametrize(
    ("name", "kind", "gates"),
    [
        cell
        for cell in itertools.product(PENALTIES, FIELDS, (None, "weight", "edge", "unit"))
        if cell not in set(combinations()) and not (cell[2] is None and cell[1] in COMPATIBILITY[cell[0]])
    ],
)
def test_other_combinations_raise_and_name_one_that_works(name: str, kind: str, gates: str | None) -> None:
    with pytest.raises(ValueError, match=r"must .* got .*\. (Use|Leave) ") as caught:
        resolve_gates(name, kind, gates)
    named = {word.strip("'.,") for word in str(caught.value).replace("=", " ").split()}
    assert any(
        cell.penalty in named and (cell.field in named or cell.field == kind or cell.gates in named)
        for cell in combinations()
    )


def test_check_of_a_penalty_reads_the_table() -> None:
    with pytest.raises(ValueError, match="must act on a field of kind 'per_target'; got kind 'shared'"):
        GroupLasso().check(FIELDS["shared"][0])
    with pytest.raises(ValueError, match="must be 'edge' or 'weight'; got gates='unit'"):
        L0(gates="unit").check(FIELDS["per_target"][0])


def test_gates_default_to_edges_per_target_and_to_weights_elsewhere() -> None:
    assert [resolve_gates("pathreg", kind, None) for kind in FIELDS] == ["edge", "weight", "weight"]
    assert resolve_gates("l1", "shared", None) is None


def test_names_and_objects_resolve_to_penalties() -> None:
    assert resolve_penalty(None) == NoPenalty()
    assert resolve_penalty("pathreg", "edge") == PathReg(gates="edge")
    assert resolve_penalty(LassoNet(M=3.0)) == LassoNet(M=3.0)
    assert resolve_penalty(L0(gates="unit"), "unit") == L0(gates="unit")


@pytest.mark.parametrize(
    ("penalty", "gates", "message"),
    [
        ("lasso", None, "must be None, a penalty object, or one of 'none', 'l1'"),
        ("group_lasso", "edge", "gates must be None for penalty='group_lasso'"),
        (None, "edge", "gates must be None for penalty='none'"),
        ("l0", "neuron", "gates must be None, 'weight', 'edge' or 'unit'; got 'neuron'"),
        (PathReg(gates="weight"), "edge", "gates must be named once"),
        (GroupLasso(), "edge", "gates must be named once"),
    ],
)
def test_unknown_names_and_contradictions_raise(
    penalty: str | AbstractPenalty | None, gates: str | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        resolve_penalty(penalty, gates)


def test_a_class_instead_of_an_object_raises() -> None:
    with pytest.raises(TypeError, match="Pass an object such as"):
        resolve_penalty(PathReg)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("cls", "options"),
    [
        (GroupLasso, {"readout_bound": 0.0}),
        (LassoNet, {"M": -1.0}),
        (LassoNet, {"readout_bound": -1.0}),
        (PathReg, {"l1_weight": -0.1}),
        (L0, {"drop_rate": 0.95}),
        (L0, {"gates": "neuron"}),
    ],
)
def test_impossible_options_raise_in_three_parts(cls: type[AbstractPenalty], options: dict[str, float | str]) -> None:
    with pytest.raises(ValueError, match=r"must .*; got .*\. (Use|Leave) "):
        cls(**options)
