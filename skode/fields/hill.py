"""Saturating curves of single sources and their products: what gene regulation, enzymes and predation look like."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property, partial
from itertools import combinations
from typing import ClassVar

import numpy as np
import torch

from skode._typing import AnyArray, FloatArray, Weights
from skode.fields._bound import AbstractBoundField, ByAutograd, Evaluated
from skode.fields._hill_points import HillPoints
from skode.fields.packed import PackedField
from skode.fields.tangents import AbstractNets, by_node, over_nodes

FEWEST = 1e-3
"""Least amount, in units of the source's median: below it, where noise may go, a curve stays as it is there."""
EXPONENT = 2.0
"""Exponent of a curve whose weight N is zero."""
JOINT, PAIRS = 4, 8
"""Curves of one target up to which products of any of them, and of any two, are terms: 15 and 36 terms."""
MOST_ENTRIES, SAMPLES = 2e5, 64
"""Entries of terms that are held at a time, and samples with which a call is worth making."""


@cache
def terms(n: int) -> list[tuple[int, ...]]:
    """Which of n curves every term multiplies: each, then products of two, and so on."""
    largest = n if n <= JOINT else 2 if n <= PAIRS else 1
    return [some for size in range(1, largest + 1) for some in combinations(range(n), size)]


def products(curves: torch.Tensor) -> torch.Tensor:
    """Every term of ``terms`` at every sample.  # (..., curve, sample) to (..., term, sample)"""
    wanted = terms(curves.shape[-2])
    found = dict(zip(wanted, curves.unbind(-2), strict=False))
    for some in wanted[len(found) :]:
        found[some] = found[some[:-1]] * found[some[-1:]]
    return torch.stack(list(found.values()), dim=-2) if found else curves


def log_amounts(gain: torch.Tensor, sources: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Logarithms of amounts, of which curves are functions."""
    return (gain * sources + shift).clamp_min(FEWEST).log()


@dataclass(frozen=True)
class HillNets(AbstractNets):
    """Curves and products of some targets that have the same number of parents.

    Parameters
    ----------
    n_slots : int
        Parents of every target.
    n_own : int
        1 if the first of them is the target itself, which is read by a line; else 0.
    """

    n_own: int

    @property
    def n_curves(self) -> int:
        """Parents that have a curve."""
        return self.n_slots - self.n_own

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        wide = (1, self.n_slots)
        return {"W0": (1, len(terms(self.n_curves))), "b0": (1, 1), "K": wide, "N": wide, "T": wide}

    @property
    def entries(self) -> frozenset[str]:
        return frozenset(HillField.ENTRIES)

    def linear(self) -> torch.Tensor:
        return self.marks("W0", "b0", "K") > 0

    def __call__(self, flat: torch.Tensor, read: torch.Tensor) -> torch.Tensor:
        return self.slopes(self.split(flat), read)

    def slopes(self, w: Weights, read: torch.Tensor) -> torch.Tensor:
        """Slopes (..., target, sample) of the state itself, then logarithms of amounts (..., target, slot, sample)."""
        own = slice(0, self.n_own)
        total = w["K"][..., own] @ read[..., own, :] + w["b0"]
        return (total + w["W0"] @ products(self.curves(w, read))).squeeze(-2)

    def mean_design(
        self, flat: torch.Tensor, read: torch.Tensor, quadrature: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        every = products(self.curves(self.split(flat), read.flatten(2)))
        return self._means(every, read, quadrature), None

    def mean_tangents(
        self, flat: torch.Tensor, read: torch.Tensor, quadrature: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        w, wide = self.split(flat), read.flatten(2)
        with torch.enable_grad():
            curves = self.curves(w, wide).requires_grad_(True)
            every = products(curves)
            (by_curve,) = torch.autograd.grad((w["W0"] @ every).sum(), curves)
        curves, every = curves.detach(), every.detach()
        bend = by_curve * curves * (1.0 - curves) * self._steepness(w)
        past = wide[:, self.n_own :] - w["T"].mT[:, self.n_own :]
        found = [self._means(every, read, quadrature)]
        linear = torch.cat([w["W0"], w["b0"], w["K"]], dim=-1)
        mean = (linear @ found[0]).squeeze(1)
        still = flat.new_zeros(len(flat), self.n_own, read.shape[-1])
        for tangent in (bend * past, -bend):
            found += [still, over_nodes(quadrature.unsqueeze(1) * by_node(tangent, quadrature))]
        return mean, torch.cat(found, dim=1)

    def _means(self, every: torch.Tensor, read: torch.Tensor, quadrature: torch.Tensor) -> torch.Tensor:
        """Weighted sums over nodes of what the linear entries multiply.  # (target, linear entry, interval)"""
        q = quadrature.unsqueeze(1)
        lines = over_nodes(q * read)
        lines[:, self.n_own :] = 0.0  # what has a curve has no line
        total = over_nodes(q).expand(len(read), -1, -1)
        return torch.cat([over_nodes(q * by_node(every, quadrature)), total, lines], dim=1)

    def _steepness(self, w: Weights) -> torch.Tensor:
        return EXPONENT * w["N"].mT[..., self.n_own :, :].exp()

    def curves(self, w: Weights, read: torch.Tensor) -> torch.Tensor:
        """Hill's function of every column but the target's own; logarithms of amounts are read there.

        Returns
        -------
        tensor  # (..., target, curve, sample)
        """
        rest = slice(self.n_own, None)
        return torch.sigmoid(self._steepness(w) * (read[..., rest, :] - w["T"].mT[..., rest, :]))


@dataclass(frozen=True)
class HillField(PackedField):
    r"""Hill's functions of every parent, their products, and a line of the target itself.

    .. math:: F_i(z) = c_i + k_i z_i + \sum_S w_{iS} \prod_{j \in S} h_{ij}, \qquad
       h_{ij} = \frac{a_j^{n_{ij}}}{a_j^{n_{ij}} + \theta_{ij}^{n_{ij}}}

    with the amount a_j = gain_j z_j + shift_j of source j, in units of its median. Sets S are any of up to
    four parents, any one or two of up to eight, and single ones where there are more. An edge has one curve,
    whatever it takes part in; sums, both-and, either-or and repression are all in the span. Weights N = log(n / 2)
    and T = log(theta) are zero for a curve that is half saturated at the source's median.

    Parameters
    ----------
    parents : tuple of tuple of int
        Sources of every target; a target that is its own parent comes first.
    gain, shift : tuple of float, one per source
        From standard units to amounts.

    References
    ----------
    "The possible effects of the aggregation of the molecules of haemoglobin on its dissociation curves", Journal of
    Physiology 40, 1910 (the function). "Biologically informed NeuralODEs for genome-wide regulatory dynamics", Genome
    Biology 25, 2024 (sums and products of such functions as a field).
    """

    ENTRIES: ClassVar[tuple[str, ...]] = ("K", "N", "T")

    gain: tuple[float, ...] = ()
    shift: tuple[float, ...] = ()

    @property
    def entries(self) -> tuple[str, ...]:
        return self.ENTRIES

    def nets(self, target: int) -> HillNets:
        return self.nets_of(target, self.parents[target])

    def nets_of(self, target: int, parents: tuple[int, ...]) -> HillNets:
        """The equation of a target that had other parents; itself first, if it is one."""
        return HillNets(len(parents), int(target in parents))

    def slots(self, target: int) -> tuple[int, ...]:
        return self.slots_of(target, self.parents[target])

    def slots_of(self, target: int, parents: tuple[int, ...]) -> tuple[int, ...]:
        """Where among ``expanded`` sources a target would read other parents: itself as it is, amounts of others."""
        return tuple(j if j == target else j + self.n_sources for j in parents)

    def expanded(self, sources: torch.Tensor) -> torch.Tensor:
        gain, shift = self._scales(sources).view(2, -1, *[1] * (sources.ndim - 1))
        return torch.cat([sources, log_amounts(gain, sources, shift)])

    def read(self, sources: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        index, place = torch.unique(slots, return_inverse=True)
        own, others = index[index < self.n_sources], index[index >= self.n_sources] - self.n_sources
        read = sources[others].double()
        gain, shift = self._scales(read)[:, others].view(2, -1, *[1] * (sources.ndim - 1))
        return torch.cat([sources[own].double(), log_amounts(gain, read, shift)])[place]

    def init(self, generator: torch.Generator, *, n_models: int, dtype: torch.dtype, device: torch.device) -> Weights:
        """No terms, and every curve half saturated at the median; nothing is drawn."""
        zeros = partial(torch.zeros, dtype=dtype, device=device)
        lead, widest = (n_models, self.n_targets, 1), max(nets.shapes["W0"][1] for nets, _, _ in self._alike)
        wide = {name: zeros(*lead, self.n_slots) for name in self.ENTRIES}
        return {"W0": zeros(*lead, widest), "b0": zeros(*lead, 1), **wide}

    def bind(self, weights: Weights) -> AbstractBoundField:
        return BoundHill(self, weights)

    def at_points(self, weights: dict[str, AnyArray], gain: FloatArray) -> HillPoints:
        found: list[tuple[int, float, tuple[int, ...]]] = []
        source: list[int] = []
        steepness: list[float] = []
        middle: list[float] = []
        own = np.zeros(self.n_targets)
        for target, parents in enumerate(self.parents):
            nets, begin = self.nets(target), len(source)
            rest = slice(nets.n_own, nets.n_slots)
            own[target] = weights["K"][target, 0, : nets.n_own].sum()
            source += parents[nets.n_own :]
            steepness += (EXPONENT * np.exp(weights["N"][target, 0, rest])).tolist()
            middle += weights["T"][target, 0, rest].tolist()
            heights = weights["W0"][target, 0].tolist()
            for height, some in zip(heights, terms(nets.n_curves), strict=False):
                found.append((target, height, tuple(begin + curve for curve in some)))
        return HillPoints(
            found,
            source=np.array(source, dtype=np.int64),
            steepness=np.array(steepness),
            middle=np.array(middle),
            own=own,
            constant=np.asarray(weights["b0"], dtype=np.float64)[:, 0, 0],
            gain=np.array(self.gain),
            shift=np.array(self.shift),
            fewest=FEWEST,
            rate=gain,
        )

    def paths(self, weights: Weights) -> torch.Tensor:
        lines = weights["K"].abs().squeeze(-2)
        open_columns = torch.zeros_like(lines)
        for nets, targets, _ in self._alike:
            members = torch.zeros(nets.shapes["W0"][1], nets.n_slots, dtype=open_columns.dtype)
            for term, curves in enumerate(terms(nets.n_curves)):
                members[term, [nets.n_own + curve for curve in curves]] = 1.0
            sizes = weights["W0"][:, targets, 0, : len(members)].abs() @ members.to(open_columns)
            open_columns[:, targets, : nets.n_slots] = sizes
            open_columns[:, targets, : nets.n_own] = lines[:, targets, : nets.n_own]
        return self.to_wide(open_columns)

    def _slopes(self, weights: Weights, read: torch.Tensor) -> torch.Tensor:
        index = self._index(read.device).clamp_max(self.n_sources - 1)
        gain, shift = self._scales(read)
        logs = log_amounts(gain[index].unsqueeze(-2), read, shift[index].unsqueeze(-2))
        slopes, order = [], []
        for nets, targets, _ in self._alike:
            own, rest = read[:, targets, :, : nets.n_own], logs[:, targets, :, nets.n_own : nets.n_slots]
            slopes.append(nets.slopes(_of(weights, nets, targets), torch.cat([own, rest], dim=-1).mT))
            order.append(targets)
        return torch.cat(slopes, dim=1)[:, torch.cat(order).argsort()]

    @cached_property
    def _alike(self) -> list[tuple[HillNets, torch.Tensor, torch.Tensor]]:
        return [(self.nets(int(targets[0])), targets, slots) for _, targets, slots in self.alike()]

    def _scales(self, like: torch.Tensor) -> torch.Tensor:
        """Gain and shift of every source.  # (2, source)"""
        return torch.tensor([self.gain, self.shift], dtype=like.dtype, device=like.device)


class BoundHill(ByAutograd):
    """The same at given weights, some samples at a time; gradients go through autograd."""

    def __init__(self, field: HillField, weights: Weights) -> None:
        super().__init__(field.__call__, weights)
        self.field = field
        device = weights["K"].device
        self.alike = [
            (nets, targets.to(device), slots.to(device), _of(self.weights, nets, targets))
            for nets, targets, slots in field._alike
        ]
        self.widest = max(sum(w["W0"].shape[-1] * len(targets) for _, targets, _, w in self.alike), 1)

    def evaluate(self, z: torch.Tensor) -> Evaluated:
        n_models = self.weights["K"].shape[0]
        slopes = z.new_empty(n_models, self.field.n_targets, z.shape[-2])
        some = max(SAMPLES, int(MOST_ENTRIES / (n_models * self.widest)))
        with torch.no_grad():
            for begin in range(0, z.shape[-2], some):
                part = slice(begin, begin + some)
                read = self.field.expanded(z[:, part].permute(2, 0, 1)).transpose(0, 1)
                for nets, targets, slots, w in self.alike:
                    slopes[:, targets, part] = nets.slopes(w, read[:, slots])
        return Evaluated(slopes.mT, (), (z.mT,))


def _of(weights: Weights, nets: HillNets, targets: torch.Tensor) -> Weights:
    """Weights of some targets that are alike.  # (model, target, 1, column)"""
    chosen = targets.to(weights["K"].device)
    return {name: weights[name][:, chosen, :, : shape[1]] for name, shape in nets.shapes.items()}
