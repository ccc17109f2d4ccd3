"""How the losses of a fit bend, nearly: by the parameters of every target, and by the starts of windows."""

from __future__ import annotations

from collections.abc import Callable

import torch

from skode._evidence import evidence_decay
from skode._typing import Weights
from skode.fields import PerTargetField
from skode.fields.tangents import TargetNets
from skode.objectives import Rows, Windows

DAMPING = 1e-3
"""Added to the curvature, in units of a target's zero-model loss: where it bends less, steps are cautious."""
MAX_ROWS = 1000
"""Rows from which curvatures are formed; more are thinned evenly."""
PROBES, NUDGE = 4, 1e-3
"""Directions in which the starts of windows are moved, and how far, in standard units."""
MOST_GROWTH = 1e8
"""Growth of windows whose solution fails, and the most that is believed of any."""
CHUNK_ENTRIES = 1e7
"""Entries of the derivative by the parameters that are held at a time, some 80 MB."""


class MatchingCurvature:
    r"""Inverse curvature of the matching loss of one network per target.

    .. math:: H_i = 2 \sum_k w_{ki} J_{ki}^T J_{ki} + 2 D + \mu I

    with J the derivative of the mean slope over interval k by the open parameters of target i, w the share of the row
    in the loss and D the weight decay. The loss of windows bends much the same, because what a solution misses at the
    end of a window is what its slopes missed on the way; and no solver is needed for it.

    Parameters
    ----------
    field : PerTargetField
    weights : dict of tensors  # (model, ...)
    frozen : dict of tensors  # (model | 1, ...), 1 where an entry may differ from zero
    rows : Rows
    scale : tensor  # (target,), from ``matching_scale``
    weight_decay : float
    freedom : tensor  # (target,), optional
        Independent data in the rows. If given, every target pays the weight decay that the evidence asks for.

    Attributes
    ----------
    weight_decay : tensor  # (model, target)
    """

    def __init__(
        self,
        field: PerTargetField,
        weights: Weights,
        frozen: Weights,
        rows: Rows,
        scale: torch.Tensor,
        weight_decay: float,
        freedom: torch.Tensor | None = None,
    ) -> None:
        self.lead = weights["K"].shape[:2]
        masks = {name: frozen[name].expand_as(value) for name, value in weights.items()}
        opened = torch.stack([masks[name].amax(-2) for name in field.entries]).amax(0).flatten(0, 1)
        n_slots = max(1, int((opened > 0).sum(-1).max()))
        columns = opened.argsort(dim=-1, descending=True, stable=True)[:, :n_slots]
        # Slots beyond a target's own sources read a source after the last, which is zero.
        self.columns = torch.where(opened.gather(-1, columns) > 0, columns, field.n_sources)  # (model * target, slot)
        self.entries = set(field.entries)
        self.nets = TargetNets(n_slots, field.hidden, field.activation, field.n_bilinear)
        self.free = self.flat(masks)
        theta = self.flat(weights)
        decayed = self.nets.marks(*(name for name in self.nets.shapes if not name.startswith("b")))
        rows = rows.select(torch.arange(0, len(rows.slopes), -(-len(rows.slopes) // MAX_ROWS), device=theta.device))
        share = rows.weights / (rows.weights.sum(0).clamp_min(1e-30) * scale)
        sources = torch.nn.functional.pad(rows.sources, (0, 1)).double()
        quadrature = rows.quadrature.double().T
        inverses, decays = [], []
        size = max(1, int(CHUNK_ENTRIES / (len(rows.slopes) * theta.shape[1])))
        for chunk in torch.split(torch.arange(len(theta), device=theta.device), size):
            read = sources[..., self.columns[chunk]].permute(2, 3, 1, 0).contiguous()  # (chunk, slot, node, interval)
            root = share.T[chunk % self.lead[1]].double().sqrt()
            mean, tangents = self.nets.mean_tangents(theta[chunk], read, quadrature * root.unsqueeze(1))
            tangents *= self.free[chunk].unsqueeze(-1)
            gram = tangents @ tangents.mT
            decay = torch.full_like(mean[:, 0], weight_decay)
            if freedom is not None:
                which = chunk % self.lead[1]
                left = (rows.slopes.T[which].double() * root - mean).square().sum(-1)
                decay = evidence_decay(gram, theta[chunk], decayed, left, freedom[which].double(), weight_decay)
            decays.append(decay)
            bend = gram.mul_(2.0)
            bend.diagonal(dim1=-2, dim2=-1).add_(2.0 * decay.unsqueeze(-1) * decayed + DAMPING)
            root, _ = torch.linalg.cholesky_ex(bend)
            # A model that is lost, or a target that does not move, goes without.
            sound = (root.isfinite().all(dim=-1) & (root.diagonal(dim1=-2, dim2=-1) > 0)).all(dim=-1)[:, None, None]
            root = torch.where(sound, root, torch.eye(root.shape[-1], dtype=root.dtype, device=root.device))
            inverses.append(torch.cholesky_inverse(root).to(share.dtype))
        self.weight_decay = torch.cat(decays).view(self.lead)
        self.inverse = torch.cat(inverses)  # (model * target, entry, entry)

    def flat(self, named: Weights) -> torch.Tensor:
        """The entries that a target may use, one after the other, in float64.  # (model * target, entry)"""
        parts = []
        for name in self.nets.shapes:
            value = named[name].flatten(0, 1).double()
            parts.append(
                (self._pad(value).gather(-1, self._index(value)) if name in self.entries else value).flatten(1)
            )
        return torch.cat(parts, dim=1)

    def __call__(self, gradient: Weights) -> Weights:
        """Inverse curvature times a gradient; 0 for entries that may not move."""
        flat = self.flat(gradient) * self.free
        flat = (self.inverse @ flat.to(self.inverse.dtype).unsqueeze(-1)).squeeze(-1).double()
        named, out = self.nets.split(flat * self.free), {}
        for name, value in gradient.items():
            part = named[name]
            if name in self.entries:
                wide = self._pad(torch.zeros_like(value.flatten(0, 1), dtype=part.dtype))
                part = wide.scatter(-1, self._index(part), part)[..., :-1]
            out[name] = part.reshape(value.shape)
        return out

    def _index(self, values: torch.Tensor) -> torch.Tensor:
        return self.columns.unsqueeze(1).expand(-1, values.shape[1], -1)

    def _pad(self, values: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(values, (0, 1))


@torch.no_grad()
def start_curvature(
    solve: Callable[[torch.Tensor], torch.Tensor],
    start: torch.Tensor,
    windows: Windows,
    scale: torch.Tensor,
    stiffness: float,
) -> torch.Tensor:
    r"""Second derivative of the loss by the shift of every start, as far as the shift of weights knows it too.

    A start is held by its own observation and the seam before it; through the solution it also moves all that its
    window must meet. Let g be how many times more the loss bends by the whole of the window, found with starts moved at
    random. The curvature is :math:`\sqrt g` times that of the start alone: the matching loss, whose curvature the
    weights take, does not know of growth along a window either, and with g itself starts would lag behind the weights.
    Without g starts of windows that diverge hold all others up.

    Parameters
    ----------
    solve : callable start -> states  # (model, window, time, state)
    start : tensor  # (model, window, state)
    windows : Windows
    scale : tensor  # (target,), from ``window_scale``
    stiffness : float
        Price of a jump at a seam relative to that of an error.

    Returns
    -------
    tensor  # (model, window, state)
    """
    d = scale.shape[0]
    error = windows.weights / (windows.weights.sum((0, 1)).clamp_min(1e-30) * scale)
    jump = stiffness / ((windows.weights > 0).sum((0, 1)).clamp_min(1) * scale)
    own = (1.0 + stiffness) / stiffness * jump
    seam = (windows.after >= 0).unsqueeze(-1)
    signs = torch.Generator().manual_seed(0)
    there, bends = solve(start)[..., :d], torch.zeros_like(start[..., 0])
    for _ in range(PROBES):
        sign = 2 * torch.randint(2, start.shape[1:], generator=signs).to(start) - 1
        moved = (solve(start + NUDGE * sign)[..., :d] - there) / NUDGE
        bends += (error * moved.square()).sum((2, 3)) + (seam * jump * moved[:, :, -1].square()).sum(-1)
    growth = (bends / (PROBES * own.sum())).nan_to_num(nan=MOST_GROWTH).clamp(1.0, MOST_GROWTH)
    n_parts = start.shape[-1] // d
    unit = 2.0 * own.repeat(n_parts) * windows.spread[:, :d].repeat(1, n_parts).square()
    return (growth.sqrt().unsqueeze(-1) * unit).clamp_min(1e-12)
