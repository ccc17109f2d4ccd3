"""Laws through the solver: dense least squares, differences and closed forms as oracles."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from skode._law_solutions import solve_law
from skode._shooting import Fit, Shooting
from skode.fields import PolynomialField, monomials
from skode.objectives import Windows

RATE = torch.tensor([0.8, 1.3], dtype=torch.float64)


def field_of(n_inputs=1, degree=2):
    n = 2 + n_inputs
    terms = tuple(monomials(n, degree))
    return PolynomialField(2, n, (), "tanh", tuple(range(n)), terms=terms, gain=(1.0, 0.5, 2.0)[:n], shift=(0.2,) * n)


def oscillator(field):
    """Coefficients of a damped oscillator with a bit of everything else."""
    draw = torch.Generator().manual_seed(0)
    coefficients = 0.05 * torch.randn(2, len(field.terms), dtype=torch.float64, generator=draw)
    coefficients[0, field.terms.index((1,))] += 1.0
    coefficients[1, field.terms.index((0,))] -= 1.0
    return coefficients


def windows_of(after=(1, 2, -1, 4, -1), n_times=4, spread=0.05, seed=0):
    """Two series of three and two windows, at times of their own, one observation missing."""
    draw = np.random.default_rng(seed)
    n = len(after)
    times = np.cumsum(np.column_stack([np.zeros(n), draw.uniform(0.2, 0.6, (n, n_times - 1))]), axis=1)
    weights = draw.uniform(0.5, 1.5, (n, n_times, 2))
    weights[1, 2, 0] = 0.0
    arrays = [
        draw.normal(size=(n, 2)),
        np.full((n, 2), spread),
        times,
        draw.normal(size=(n, n_times, 2)),
        weights,
        draw.normal(size=(n, 1)),
        np.zeros(n),
    ]
    return Windows(*[torch.as_tensor(a) for a in arrays], torch.tensor(after))


def shooting_of(windows, n_steps=12, tie=0.5):
    sd = torch.tensor([0.1, 0.2], dtype=torch.float64)
    return replace(Shooting.of(windows, RATE, sd, n_steps), tie=tie)


def all_errors(shooting, field, coefficients, start):
    """Everything whose squares are added up, as one vector."""
    errors, jumps = shooting.errors(field, Fit(coefficients, start))
    held = shooting.held.sqrt() * (start - shooting.windows.start)
    return torch.cat([errors.flatten(), jumps.flatten(), held.flatten()])


def differences(function, at, step=1e-6):
    columns = []
    for unit in torch.eye(at.numel(), dtype=at.dtype):
        nudge = step * unit.view_as(at)
        columns.append((function(at + nudge) - function(at - nudge)) / (2 * step))
    return torch.stack(columns, dim=1)


def test_eliminated_starts_leave_what_dense_least_squares_leave():
    field, windows = field_of(), windows_of()
    shooting, coefficients = shooting_of(windows), oscillator(field)
    start = windows.start + 0.01
    columns = torch.tensor([(0, 1), (0, 4), (1, 0), (1, 2), (1, 7)])
    linear = shooting.linearised(field, Fit(coefficients, start), columns)

    def of_columns(values):
        moved = coefficients.clone()
        moved[columns[:, 0], columns[:, 1]] = values
        return all_errors(shooting, field, moved, start)

    missed = all_errors(shooting, field, coefficients, start)
    by_column = -differences(of_columns, coefficients[columns[:, 0], columns[:, 1]])
    by_start = -differences(lambda s: all_errors(shooting, field, coefficients, s), start)
    inner = torch.linalg.inv(by_start.T @ by_start)
    keep = torch.eye(len(missed), dtype=torch.float64) - by_start @ inner @ by_start.T
    torch.testing.assert_close(linear.gram[0], by_column.T @ keep @ by_column, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(linear.right[0], by_column.T @ keep @ missed, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(linear.rest[0], missed @ keep @ missed, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(linear.newton.flatten(), inner @ by_start.T @ missed, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(linear.answer.flatten(0, 1), inner @ by_start.T @ by_column, rtol=1e-4, atol=1e-5)


def held_part(shooting, start):
    """What it costs that starts are not where they were given."""
    return (shooting.held * (start - shooting.windows.start) ** 2).sum()


def test_series_apart_add_up_to_all_of_them():
    field, windows = field_of(), windows_of()
    shooting, fit = shooting_of(windows), Fit(oscillator(field), windows.start)
    columns = torch.tensor([(0, 1), (1, 0), (1, 5)])
    whole, parts = (shooting.linearised(field, fit, columns, apart=apart) for apart in (False, True))
    assert parts.gram.shape == (2, 3, 3)
    torch.testing.assert_close(parts.gram.sum(0), whole.gram[0])
    torch.testing.assert_close(parts.right.sum(0), whole.right[0])
    torch.testing.assert_close(parts.rest.sum(0), whole.rest[0])
    assert [len(place) for place in shooting.apart(2).places] == [3, 2]


@pytest.mark.parametrize("start_known", [False, True])
def test_the_law_of_an_oscillator_is_found_to_rounding(start_known):
    """x'' = -x - .2 x' from its closed form; the fit begins at other coefficients and starts."""
    n, n_times, damping = 6, 5, 0.1
    omega = np.sqrt(1.0 - damping**2)
    draw = np.random.default_rng(0)
    amplitude, phase = draw.uniform(1.0, 2.0, n), draw.uniform(0, 6, n)

    def exact(t):
        grown, angle = amplitude[:, None] * np.exp(-damping * t), omega * t + phase[:, None]
        x = grown * np.cos(angle)
        return np.stack([x, -damping * x - omega * grown * np.sin(angle)], axis=-1)

    times = np.sort(np.column_stack([np.zeros(n), draw.uniform(0.1, 2.0, (n, n_times - 1))]), axis=1)
    states = exact(times)
    spread = np.zeros((n, 2)) if start_known else np.full((n, 2), 0.05)
    begin = states[:, 0] if start_known else states[:, 0] + 0.05
    none = np.zeros((n, 0))
    arrays = [begin, spread, times, states, np.ones_like(states), none, np.zeros(n)]
    windows = Windows(*[torch.as_tensor(a) for a in arrays], torch.full((n,), -1))
    field = PolynomialField(2, 2, (), "tanh", (0, 1), terms=((0,), (1,)), gain=(1.0, 1.0), shift=(0.0, 0.0))
    one = torch.ones(2, dtype=torch.float64)
    shooting = Shooting.of(windows, one, 0.05 * one, 60)
    near = torch.tensor([[0.1, 0.8], [-0.7, 0.1]], dtype=torch.float64)
    fit = shooting.fit(field, Fit(near, windows.start), n_iter=30)
    expected = torch.tensor([[0.0, 1.0], [-1.0, -0.2]], dtype=torch.float64)
    torch.testing.assert_close(fit.coefficients, expected, rtol=0, atol=2e-4)
    assert fit.squares == pytest.approx(float(held_part(shooting, fit.start)), abs=1e-4)
    if start_known:
        torch.testing.assert_close(fit.start, torch.as_tensor(states[:, 0]), rtol=0, atol=1e-9)


def test_coefficients_that_are_zero_stay_zero_and_fits_never_get_worse():
    field, windows = field_of(), windows_of()
    shooting = shooting_of(windows)
    sparse = torch.where(oscillator(field).abs() > 0.5, oscillator(field), 0.0)
    begin = Fit(sparse, windows.start)
    starts = shooting.fit(field, begin, moves=False)
    both = shooting.fit(field, starts)
    torch.testing.assert_close(starts.coefficients, sparse, rtol=0, atol=0)
    assert ((both.coefficients != 0) == (sparse != 0)).all()
    before = float(all_errors(shooting, field, sparse, windows.start).square().sum())
    assert both.squares < starts.squares < before


def test_a_window_beside_the_data_counts_for_nothing():
    field = field_of()
    windows, coefficients = windows_of(after=(1, 2, 3, -1, 5, 6, -1)), oscillator(field)
    shooting = shooting_of(windows)
    solved, _ = solve_law(field, coefficients, RATE, windows.start, windows, shooting.n_steps)
    targets = solved.clone()
    targets[2] += 30.0
    shooting = replace(shooting, windows=windows._replace(targets=targets))
    fit = Fit(coefficients, windows.start)
    less = shooting.without_lost(field, fit)
    assert less.used.tolist() == [True, True, False, True, True, True, True]
    assert less.n_data + less.n_lost <= int((windows.weights > 0).sum()) and less.n_lost == 8
    errors, jumps = less.errors(field, fit)
    assert float(errors.abs().max()) < 1e-9
    assert not jumps[2].any() and not jumps[1].any()  # neither side of it is tied to it


def test_a_law_that_runs_away_is_bad_and_finite():
    field, windows = field_of(), windows_of()
    shooting, wild = shooting_of(windows), torch.full((2, len(field.terms)), 40.0, dtype=torch.float64)
    fit = shooting.fit(field, Fit(wild, windows.start), n_iter=3)
    assert np.isfinite(fit.squares) and torch.isfinite(fit.coefficients).all() and torch.isfinite(fit.start).all()


def test_noise_is_what_a_law_leaves_of_every_target_and_no_less_than_the_least():
    field = field_of()
    windows, coefficients = windows_of(), oscillator(field)
    shooting = shooting_of(windows)
    solved, _ = solve_law(field, coefficients, RATE, windows.start, windows, shooting.n_steps)
    weights = (windows.weights > 0).double()
    noise = torch.as_tensor(np.random.default_rng(4).normal(size=solved.shape)) * torch.tensor([0.3, 1e-4])
    shooting = replace(shooting, windows=windows._replace(targets=solved + noise, weights=weights))
    fit = Fit(coefficients, windows.start)
    counted = (shooting.roots > 0).double()
    root_mean_square = ((noise**2 * counted).sum((0, 1)) / counted.sum((0, 1))).sqrt()
    found = shooting.reweighted(field, fit, 1e-3)
    torch.testing.assert_close(found.sd, torch.stack([root_mean_square[0], torch.tensor(1e-3, dtype=torch.float64)]))


@pytest.mark.parametrize("least", [1e-9, 0.5])
def test_the_mean_logarithm_of_squares_does_not_ask_how_targets_are_weighed(least):
    field = field_of()
    windows, coefficients = windows_of(), oscillator(field)
    windows = windows._replace(weights=(windows.weights > 0).double())
    shooting, fit = shooting_of(windows), Fit(coefficients, windows.start)
    errors, jumps = shooting.errors(field, fit)
    count = (shooting.roots > 0).sum((0, 1))
    squares = ((errors**2).sum((0, 1)) + (jumps**2).sum(0)) * shooting.sd**2 / count
    expected = float((count * squares.clamp_min(least**2).log()).sum() / count.sum())
    assert shooting.mean_log_square(field, fit, least) == pytest.approx(expected)
    untied = replace(shooting, windows=windows._replace(after=torch.full_like(windows.after, -1)))
    other = replace(untied, sd=untied.sd * torch.tensor([7.0, 0.2], dtype=torch.float64))
    assert other.mean_log_square(field, fit, least) == pytest.approx(untied.mean_log_square(field, fit, least))


def test_times_at_the_ends_of_steps_and_between_them_are_answered_alike():
    field = field_of()
    windows, coefficients = windows_of(after=(1, -1)), oscillator(field)
    columns = coefficients.nonzero()
    n = windows.times.shape[1]
    even = windows._replace(times=windows.times[:, -1:] * torch.linspace(0, 1, n, dtype=torch.float64))
    for some in (windows, even):
        given = coefficients, RATE, some.start, some
        coarse, fine = (solve_law(field, *given, k * (n - 1), columns) for k in (8, 40))
        for a, b in zip(coarse, fine, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=2e-4)
    torch.testing.assert_close(coarse[0][:, 0], windows.start)
    eye = torch.eye(2, dtype=torch.float64).expand(2, 2, 2)
    torch.testing.assert_close(coarse[1][:, 0, :, :2], eye)
    assert not coarse[1][:, 0, :, 2:].any()
