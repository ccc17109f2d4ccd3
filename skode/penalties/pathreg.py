"""Expected share of open paths, plus absolute path weights: PathReg."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from skode._typing import Weights
from skode.fields import AbstractField
from skode.penalties._gated import AbstractGated
from skode.penalties.gates import OPEN_AT_LEAST


@dataclass(frozen=True)
class PathReg(AbstractGated):
    """A price on every open path from a variable to a target, and on the weight that flows through it.

    value = sum_ij share_ij + l1_weight * sum_ij (|Z_L W_L| ... |Z_1 W_1|)_ij,
    share_ij = (P_L ... P_1)_ij / number of paths from j to i

    where P holds the probabilities that gates are open and Z the deterministic gates. share_ij is the
    expected number of open paths from variable j to target i as a fraction of all, so a fully open edge costs
    1 and a closed one nothing. The linear skip is one more path, and so is each pair in a product of linear
    forms; with edge gates all paths of an edge open together, and share_ij is the probability of its gate.

    Scale: as for ``L0``, in units of a target's zero-model loss per edge. On shared fields a single open path
    costs only 1 / (number of hidden paths), so that larger alphas are useful there. ``zero_alpha`` tells from
    where on the empty model is certainly optimal.

    Parameters
    ----------
    gates : {"weight", "edge", "unit"} or None, default=None
        What a gate multiplies; None is "edge" on per-target fields and "weight" on shared ones. "unit" is the
        published code's choice and cannot express a graph: its gate products have rank one.
    drop_rate : float, default=0.2
        Where gates start: sigmoid(log a) = 1 - drop_rate.
    l1_weight : float, default=0.1
        Price of path weights relative to the price of open paths. The published experiment has 10.

    Examples
    --------
    >>> import torch
    >>> from skode.fields import SharedField
    >>> from skode.penalties import PathReg
    >>> field = SharedField(2, 2, (4,), "tanh", (0, 1))
    >>> weights = field.init(torch.Generator().manual_seed(0), n_models=1, dtype=torch.float64,
    ...                      device=torch.device("cpu"))
    >>> penalty = PathReg(gates="weight", l1_weight=0.0)
    >>> params = penalty.init(field, weights)
    >>> penalty.value(field, params).round(decimals=2)  # 4 edges, each open with probability .95 squared
    tensor([3.6200], dtype=torch.float64)

    References
    ----------
    "Sparsity in Continuous-Depth Neural Networks", 2022, arXiv 2210.14672. Differences to the
    paper: sums over edges instead of means, gates per weight or per edge, gates drawn once per solve, and
    skip and bilinear paths. Differences to its published code: there gates are redrawn at every evaluation of
    the field, in training and in evaluation (here deterministic after training); the path term multiplies
    sampled gates (here exact probabilities); the L1 term sees ungated weights (here gated ones); and gates
    are per input unit.
    """

    l1_weight: float = 0.1

    def __post_init__(self) -> None:
        AbstractGated.__post_init__(self)
        if not self.l1_weight >= 0:
            raise ValueError(
                f"l1_weight must be 0 or larger; got {self.l1_weight}. Use 0 for the path term alone, or 0.1."
            )

    @property
    def name(self) -> str:
        return "pathreg"

    def smooth(self, field: AbstractField, params: Weights, *, prices: torch.Tensor | None = None) -> torch.Tensor:
        total = self.layout(field).open_share(field, params)
        if self.l1_weight > 0:
            total = total + self.l1_weight * field.by_variable(field.paths(self.weights(field, params)))
        return (total if prices is None else total * prices).sum((-2, -1))

    def zero_alpha(self, field: AbstractField) -> float:
        layout = self.layout(field)
        if layout.kind == "edge":
            return 1 / OPEN_AT_LEAST
        template = field.init(
            torch.Generator().manual_seed(0), n_models=1, dtype=torch.float64, device=torch.device("cpu")
        )
        ones = {name: torch.ones_like(tensor) for name, tensor in template.items()}
        n_paths = float(field.by_variable(field.paths(ones)).max())
        # A target that is not empty has an open path, whose gates are all at least on the edge of closing.
        longest = max(len(field.chain), 2 if "P" in field.entries else 1)
        return n_paths / OPEN_AT_LEAST**longest
