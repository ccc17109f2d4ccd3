"""What prior knowledge of edges does to parameters: masks, prices, and a projection on signs."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from skode._typing import Weights
from skode.fields import AbstractField


@dataclass(frozen=True)
class Constraints:
    """Prior knowledge of a field of one network per target, as tensors.

    Parameters
    ----------
    closed : bool tensor  # (target, variable), edges that never open
    required : bool tensor  # (target, variable), edges that are never cut
    prices : tensor  # (target, variable), factors on the price of edges; 0 is free
    signs : tensor  # (target, variable), +1, -1, or 0 where the sign is free
    """

    closed: torch.Tensor
    required: torch.Tensor
    prices: torch.Tensor
    signs: torch.Tensor

    @property
    def free(self) -> torch.Tensor:
        """Open edges that cost nothing.  # (target, variable)"""
        return (self.prices == 0) & ~self.closed

    def of(self, targets: torch.Tensor) -> Constraints:
        """What is known of some targets, which may repeat."""
        return Constraints(*(part[targets] for part in (self.closed, self.required, self.prices, self.signs)))

    def mask(self, field: AbstractField, frozen: Weights) -> Weights:
        """Close and open edges in a support.

        Closed edges are closed, required ones opened. A projection on signs leaves zeros inside edges that are open;
        these edges are opened as a whole, or the refit could not use all of their units.

        Parameters
        ----------
        field : AbstractField
        frozen : dict of tensors  # (model | 1, ...), 1 where an entry may differ from zero

        Returns
        -------
        dict of tensors, of the same shapes
        """
        some = frozen["W0"]
        stay = self._columns(field, ~self.closed, some)  # (target, 1, source)
        whole = self._columns(field, self.required, some).expand_as(frozen["K"])
        signed = self._columns(field, self.signs != 0, some)
        found = torch.stack([frozen[name].amax(-2, keepdim=True) for name in field.entries]).amax(0)
        whole = torch.maximum(whole, signed * found)  # (model, target, 1, source)
        out = dict(frozen)
        for name in field.entries:
            out[name] = torch.maximum(out[name], whole) * stay
        for name in _bilinear(field):
            out[name] = out[name] * (1 - signed)
        return out

    def start(self, field: AbstractField, params: Weights) -> Weights:
        """Initial weights of the right signs: hidden units are turned round, then projected."""
        if not bool(self.signs.any()):
            return params
        signed = (self.signs != 0).any(-1)[:, None, None]
        turned = torch.where(signed, params["W1"].abs() * _turns(params["W1"]), params["W1"])
        out = {**params, **{name: params[name].clone() for name in field.entries}, "W1": turned}
        self.project(field, out)
        return out

    def project(self, field: AbstractField, params: Weights) -> None:
        """Set to zero what has the wrong sign; changes params.

        With F_i(z) = c_i + k_i . z + sum_h v_ih s(w_ih . z + b_ih) and s' >= 0, a derivative of sign s_ij at every z
        follows from s_ij k_ij >= 0 and s_ij v_ih w_ihj >= 0. The signs of v are fixed by turns, + and -, for targets
        with a signed source, so that the set is convex and this is the Euclidean projection on it; were they
        free, a unit whose v passes through zero would lose its signed sources and no others.
        """
        if not bool(self.signs.any()):
            return
        signs = self._columns(field, self.signs, params["W0"])
        turns = _turns(params["W1"])  # (1, hidden)
        signed = (self.signs != 0).any(-1)[:, None, None]
        params["W1"].masked_fill_(signed & (turns * params["W1"] < 0), 0.0)
        params["W0"].masked_fill_(signs * turns.mT * params["W0"] < 0, 0.0)
        params["K"].masked_fill_(signs * params["K"] < 0, 0.0)
        for name in _bilinear(field):
            params[name].masked_fill_(signs != 0, 0.0)

    def _columns(self, field: AbstractField, values: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """Values of edges beside the rows of an entry tensor.  # (target, 1, source)"""
        return field.to_sources(values).unsqueeze(-2).to(like.dtype)


def _bilinear(field: AbstractField) -> tuple[str, ...]:
    return tuple(name for name in field.entries if name in ("P", "R"))


def _turns(readout: torch.Tensor) -> torch.Tensor:
    """+1 and -1 by turns, one for every hidden unit.  # (1, hidden)"""
    place = torch.arange(readout.shape[-1], device=readout.device)
    return (1 - 2 * (place % 2)).to(readout.dtype).unsqueeze(0)
