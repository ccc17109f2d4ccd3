"""How the losses of a fit bend, nearly: Gauss-Newton matrices of the matching loss, target by target."""

from __future__ import annotations

import torch

from skode._typing import Weights
from skode.fields import PerTargetField
from skode.fields.tangents import TargetNets
from skode.objectives import Rows

DAMPING = 1e-3
"""Added to the curvature, in units of a target's zero-model loss: where it bends less, steps are cautious."""
MAX_ROWS = 1000
"""Rows from which curvatures are formed; more are thinned evenly."""
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
    """

    def __init__(
        self,
        field: PerTargetField,
        weights: Weights,
        frozen: Weights,
        rows: Rows,
        scale: torch.Tensor,
        weight_decay: float,
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
        inverses = []
        size = max(1, int(CHUNK_ENTRIES / (len(rows.slopes) * theta.shape[1])))
        for chunk in torch.split(torch.arange(len(theta), device=theta.device), size):
            read = sources[..., self.columns[chunk]].permute(2, 3, 1, 0).contiguous()  # (chunk, slot, node, interval)
            root = share.T[chunk % self.lead[1]].double().sqrt()
            _, tangents = self.nets.mean_tangents(theta[chunk], read, quadrature * root.unsqueeze(1))
            tangents *= self.free[chunk].unsqueeze(-1)
            bend = 2.0 * tangents @ tangents.mT
            bend.diagonal(dim1=-2, dim2=-1).add_(2.0 * weight_decay * decayed + DAMPING)
            root, _ = torch.linalg.cholesky_ex(bend)
            # A model that is lost, or a target that does not move, goes without.
            sound = (root.isfinite().all(dim=-1) & (root.diagonal(dim1=-2, dim2=-1) > 0)).all(dim=-1)[:, None, None]
            root = torch.where(sound, root, torch.eye(root.shape[-1], dtype=root.dtype, device=root.device))
            inverses.append(torch.cholesky_inverse(root).to(share.dtype))
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
