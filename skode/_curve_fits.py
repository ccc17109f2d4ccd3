"""Least squares for many sets of sources at once, which are read through Hill's functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from skode._amounts import Amounts
from skode._parallel import on_threads
from skode._refit import Matching
from skode._typing import Weights
from skode.fields import AbstractField, HillField
from skode.fields.hill import EXPONENT, HillNets
from skode.least_squares import levenberg_marquardt
from skode.objectives import Rows

STEPS = 20
"""Steps of Levenberg-Marquardt after which curves stand still."""
PRICES = ((1e-4, 1.0), (1e-2, 1.0), (1e-2, 10.0))
"""Prices on offer, in units of the weight decay: of heights, and of bends that differ from those half saturated at the
usual amount. Data that are nearly clean want heights that cost hardly anything."""
SEARCHED = 1
"""Place of those at which sets of sources are compared: heights cost little beside what noise allows."""
CHUNK_ENTRIES = 1e6
"""Entries of derivatives by the parameters that a thread holds at a time, 8 MB."""
TOLERANCE = 1e-3
"""Share of its objective below which a step of least squares has nothing left to gain."""
JITTER = 1e-9
"""Relative, on diagonals: entries that neither data nor prices hold."""
RIDGE = 1e-3
"""Relative, on the diagonal of a source's curve and its products, which are often nearly the same."""


def hill_field(field: AbstractField, amounts: Amounts, parents: Sequence[Sequence[int]]) -> HillField:
    """Curves for the targets and sources of another field, a target first among its own parents."""
    return HillField(
        field.n_targets,
        field.n_sources,
        (),
        field.activation,
        field.variable_of_source,
        parents=tuple(own_first(target, some) for target, some in enumerate(parents)),
        gain=tuple(amounts.gain.tolist()),
        shift=tuple(amounts.shift.tolist()),
    )


def own_first(target: int, parents: Iterable[int]) -> tuple[int, ...]:
    """Parents in their order, the target itself first if it is one."""
    return tuple(sorted(parents, key=lambda source: (source != target, source)))


def curve_prices(weight_decay: float) -> list[dict[str, float]]:
    """Prices on offer, of the squared weights of curves."""
    return [
        {"W0": height * weight_decay, "N": bend * weight_decay, "T": bend * weight_decay} for height, bend in PRICES
    ]


class Candidate(NamedTuple):
    """Sources that a target may read, and curves to begin with."""

    target: int
    parents: tuple[int, ...]  # itself first, if it is one
    bends: Mapping[int, tuple[float, float]]  # N and T of some parents; zero for others


class CurveFit(NamedTuple):
    """Curves and products fitted to what a target does."""

    target: int
    parents: tuple[int, ...]
    theta: torch.Tensor  # (entry,) in the order of the target's ``HillNets``
    bends: Mapping[int, tuple[float, float]]  # N and T of every parent
    loss: float  # in units of the zero model's
    n_determined: float  # parameters that the data determine rather than the prices


class CurveFits:
    """Interval rows, ready for many fits to them.

    Parameters
    ----------
    field : HillField
        Whose amounts and products; its parents do not matter.
    rows : Rows
    scale : tensor  # (target,), from ``matching_scale``
    prices : dict of float
        Price of the squared entries of "W0", "N" and "T".
    """

    def __init__(self, field: HillField, rows: Rows, scale: torch.Tensor, prices: Mapping[str, float]) -> None:
        self.field, self.prices = field, prices
        self.sources = field.expanded(rows.sources.permute(2, 1, 0).double().contiguous())  # (source, node, interval)
        total = rows.weights.double().sum(0).clamp_min(1e-30) * scale.double()
        self.roots = (rows.weights.double() / total).sqrt().T  # (target, interval)
        self.quadrature = rows.quadrature.double().T
        self.slopes = rows.slopes.double().T * self.roots

    @property
    def n_sources(self) -> int:
        """Sources on offer."""
        return self.field.n_sources

    def fit(self, candidates: Sequence[Candidate], n_iter: int) -> list[CurveFit]:
        """Fit all of them, those that are alike in batches.

        Parameters
        ----------
        candidates : sequence of Candidate
        n_iter : int
            Steps of Levenberg-Marquardt; heights and lines are solved for after every step.

        Returns
        -------
        list of CurveFit, in the order of the candidates
        """
        found: dict[int, CurveFit] = {}

        def solve(places: list[int]) -> None:
            some = [candidates[place] for place in places]
            found.update(zip(places, self._fit_alike(some, n_iter), strict=True))

        on_threads(solve, self._chunks(candidates))
        return [found[place] for place in range(len(candidates))]

    def squares(self, fits: Sequence[CurveFit]) -> torch.Tensor:
        """Squared errors of fits, which may come from other rows, on every row of these.  # (fit, interval)"""
        found = self.slopes.new_empty(len(fits), self.slopes.shape[1])
        for places in self._chunks([Candidate(fit.target, fit.parents, fit.bends) for fit in fits]):
            some = [fits[place] for place in places]
            matching = self._matching([(fit.target, fit.parents) for fit in some])
            found[places] = matching.residuals(torch.stack([fit.theta for fit in some])).square()
        return found

    def promising(self, fit: CurveFit, others: Sequence[int], n: int) -> list[int]:
        """Those of other sources whose curve, alone and times each of the fit's, explains most of what is left.

        A new curve is half saturated at the median and has the exponent 2; to what it explains only counts what the
        parameters of the fit could not have explained.

        Parameters
        ----------
        fit : CurveFit
        others : sequence of int
        n : int

        Returns
        -------
        list of int
            At most n, the best first.
        """
        if not len(others):
            return []
        matching = self._matching([(fit.target, fit.parents)])
        nets, theta = self.field.nets_of(fit.target, fit.parents), fit.theta.unsqueeze(0)
        left, tangents = (part.squeeze(0) for part in matching.linearise(theta))
        known = nets.curves(nets.split(theta), matching.read.flatten(2))[0]
        weights = torch.cat([known.new_ones(1, known.shape[1]), known]).view(-1, *matching.quadrature.shape[1:])
        fresh = torch.sigmoid(EXPONENT * self.sources[self.n_sources :][list(others)])  # (source, node, interval)
        blocks = torch.einsum("snk,cnk->sck", fresh, weights * matching.quadrature)
        gram = _held(tangents.mT @ tangents, matching.decay)
        root, _ = torch.linalg.cholesky_ex(gram)
        flat = blocks.flatten(0, 1)
        blocks = (flat - torch.cholesky_solve((flat @ tangents).mT, root).mT @ tangents.mT).view_as(blocks)
        inner = blocks @ blocks.mT
        diagonal = inner.diagonal(dim1=-2, dim2=-1)
        diagonal += self.prices["W0"] + RIDGE * diagonal
        cross = blocks @ left
        gain = (cross * torch.linalg.solve(inner, cross)).sum(-1)
        return [others[int(place)] for place in gain.argsort(descending=True)[:n]]

    def _fit_alike(self, some: Sequence[Candidate], n_iter: int) -> list[CurveFit]:
        matching = self._matching([(one.target, one.parents) for one in some])
        nets, decay = matching.nets, matching.decay
        assert isinstance(nets, HillNets)
        begin = torch.tensor(
            [[[one.bends.get(j, (0.0, 0.0))[part] for j in one.parents] for one in some] for part in (0, 1)],
            dtype=decay.dtype,
            device=decay.device,
        )
        still = decay.new_zeros(len(some), nets.n_entries - 2 * nets.n_slots)
        theta = torch.cat([still, *begin], dim=-1)  # N and T are last
        if nets.n_curves:
            theta = levenberg_marquardt(
                matching.residuals,
                matching.linearise,
                theta,
                decay=decay,
                settle=matching.settle,
                n_iter=n_iter,
                tol=TOLERANCE,
            ).theta
        else:
            theta, _ = matching.settle(theta)
        left, tangents = matching.linearise(theta)
        gram = tangents.mT @ tangents
        determined = (gram * torch.cholesky_inverse(torch.linalg.cholesky_ex(_held(gram, decay))[0])).sum((-2, -1))
        losses, bends = left.square().sum(-1).tolist(), theta[:, still.shape[1] :].view(len(some), 2, -1).tolist()
        return [
            CurveFit(
                one.target,
                one.parents,
                theta[k],
                dict(zip(one.parents, zip(*bends[k], strict=True), strict=True)),
                losses[k],
                float(determined[k]),
            )
            for k, one in enumerate(some)
        ]

    def _matching(self, sets: Sequence[tuple[int, tuple[int, ...]]]) -> Matching:
        """The least squares of some sets that are alike: targets and their parents."""
        nets, device = self.field.nets_of(*sets[0]), self.slopes.device
        targets = torch.tensor([target for target, _ in sets], device=device)
        slots = torch.tensor([self.field.slots_of(*some) for some in sets], dtype=torch.long, device=device)
        decay = sum((price * nets.marks(name) for name, price in self.prices.items()), start=nets.marks()).to(device)
        return Matching(
            nets,
            self.sources[slots.view(len(sets), nets.n_slots)],
            self.quadrature * self.roots[targets].unsqueeze(1),
            self.slopes[targets],
            nets.linear().to(device),
            decay,
            torch.ones(len(sets), nets.n_entries, dtype=decay.dtype, device=device),
        )

    def _chunks(self, candidates: Sequence[Candidate]) -> Iterator[list[int]]:
        """Places of candidates that are alike, as many as fit."""
        alike: dict[HillNets, list[int]] = {}
        for place, one in enumerate(candidates):
            alike.setdefault(self.field.nets_of(one.target, one.parents), []).append(place)
        for nets, places in alike.items():
            some = max(1, int(CHUNK_ENTRIES / (nets.n_entries * self.slopes.shape[1])))
            for begin in range(0, len(places), some):
                yield places[begin : begin + some]


def with_parents(like: HillField, fits: Sequence[CurveFit]) -> HillField:
    """The same curves with the parents of fits; none for targets without a fit."""
    parents: list[tuple[int, ...]] = [()] * like.n_targets
    for fit in fits:
        parents[fit.target] = fit.parents
    return replace(like, parents=tuple(parents))


def curve_weights(field: HillField, fits: Sequence[CurveFit]) -> Weights:
    """Weights of the field, zero for targets without a fit.  # (1, ...), float64"""
    device = fits[0].theta.device
    weights = field.init(torch.Generator(), n_models=1, dtype=torch.float64, device=device)
    for fit in fits:
        nets = field.nets(fit.target)
        nets.put(weights, torch.tensor([fit.target], device=device), fit.theta.unsqueeze(0))
    return weights


def _held(gram: torch.Tensor, decay: torch.Tensor) -> torch.Tensor:
    """The second derivative with what prices add."""
    held = gram.clone()
    diagonal = held.diagonal(dim1=-2, dim2=-1)
    diagonal += decay + JITTER * (1.0 + diagonal)
    return held
