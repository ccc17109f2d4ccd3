"""Gene networks with Hill kinetics, of any size."""

from __future__ import annotations

import numbers
from dataclasses import dataclass
from typing import Literal

import numpy as np

from skode._typing import AnyArray, BoolArray, FloatArray, IntArray
from skode.datasets._system import Sampling, Seed, SimulatedSystem, check_size, open_streams, simulate
from skode.datasets.linear import draw_rates

_BASAL = 0.05
_INPUT_TARGETS = 2


@dataclass(frozen=True, eq=False)
class HillNetwork:
    """The right-hand side of a Hill network as edges sorted by target, vectorised over leading axes."""

    source: IntArray  # (edge,), inputs count on from the last gene
    target: IntArray  # (edge,), sorted
    sign: IntArray  # (edge,), +1 activates, -1 represses
    threshold: FloatArray  # (edge,)
    coefficient: FloatArray  # (edge,)
    gain: FloatArray  # (edge,), used where combine is "sum"
    scale: FloatArray  # (target,)
    decay: FloatArray  # (target,)
    combine: Literal["product", "sum"]

    def __call__(self, t: float, x: FloatArray, u: FloatArray | None = None) -> FloatArray:
        """Return dx/dt."""
        drivers = x if u is None else np.concatenate((x, np.broadcast_to(u, (*x.shape[:-1], u.shape[-1]))), axis=-1)
        power = (np.maximum(drivers[..., self.source], 0.0) / self.threshold) ** self.coefficient
        effect = np.where(self.sign > 0, power, 1.0) / (1.0 + power)
        regulated, first = np.unique(self.target, return_index=True)
        production = np.full(x.shape, _BASAL)
        if regulated.size:
            if self.combine == "product":
                joint = np.multiply.reduceat(effect, first, axis=-1)
            else:
                joint = np.add.reduceat(self.gain * effect, first, axis=-1)
            production[..., regulated] += self.scale[regulated] * joint
        return np.asarray(self.decay * (production - x), dtype=np.float64)


def make_hill_network(
    n_genes: int = 20,
    n_trajectories: int = 30,
    n_times: int = 10,
    *,
    dt: float = 0.4,
    n_edges: int | None = None,
    n_inputs: int = 0,
    combine: Literal["product", "sum"] = "product",
    repression: float = 0.4,
    hubs: float = 0.0,
    decay: float = 1.0,
    decay_spread: float = 1.0,
    noise: float = 0.0,
    irregular: bool | float = False,
    missing: float = 0.0,
    random_state: Seed = None,
) -> SimulatedSystem:
    """Simulate a random gene network in which regulators act through Hill functions.

    With s = x_j / K_ij and k the number of regulators of gene i::

        dx_i/dt = decay_i (0.05 + production_i - x_i)
        effect_ij = s^n / (1 + s^n) if j activates i,  1 / (1 + s^n) if j represses i
        production_i = 2^(k - 1) prod_j effect_ij  ("product")   or   sum_j gain_ij effect_ij  ("sum")

    Thresholds K are uniform in [0.3, 0.7], Hill coefficients n in [2, 4]; the gains of a gene add up to 1.
    The factor 2^(k - 1) keeps the size of a product from falling with k. Starts are uniform in [0, 1.5], so
    that both ends of the Hill functions are visited while the network relaxes. Unregulated genes have
    production 0.

    Parameters
    ----------
    n_genes : int, default=20
        Number of genes, at least 2; hundreds are fine, every evaluation costs as much as there are edges.
    n_trajectories, n_times : int, default=30, 10
        Number of trajectories and of observations of each.
    dt : float, default=0.4
        Time between observations; with the default sizes a trajectory lasts 3.6 mean decay times.
    n_edges : int or None, default=None
        Number of edges between genes, none from a gene to itself; None means 2.1 per gene (42 for 20 genes).
        In-degrees differ by chance; every gene is regulated if there are enough edges.
    n_inputs : int, default=0
        Number of constant inputs u, uniform in [0, 1] for each trajectory. Each regulates two random genes on
        top of ``n_edges``.
    combine : {"product", "sum"}, default="product"
        Whether a gene needs its regulators together or adds up their effects.
    repression : float, default=0.4
        Probability that an edge represses.
    hubs : float, default=0.0
        Between 0 and 10, how uneven the genes are as regulators: in a random order, the k-th is drawn with odds
        k^-hubs. 0 makes all alike; with 1, Zipf's law, few genes regulate most others.
    decay : float, default=1.0
        Geometric mean of the range of decay rates.
    decay_spread : float, default=1.0
        Ratio of the largest to the smallest possible rate (log-uniform); 10 spreads the rates over a decade.
        Production is multiplied by the same rate, so levels stay comparable.
    noise : float, default=0.0
        Standard deviation of the noise as a fraction of each variable's own.
    irregular : bool or float, default=False
        True for random times, a fraction for a random share of the regular grid.
    missing : float, default=0.0
        Share of the values after each first observation that is NaN.
    random_state : int, Generator, RandomState or None, default=None
        Seed.

    Returns
    -------
    SimulatedSystem
        Variables g0, g1, ...; ``signs`` holds +1 and -1. ``self_edges`` is False: every gene decays, but by
        the custom of gene networks the diagonal of ``adjacency`` is False and comparisons leave it out.

    Raises
    ------
    ValueError
        If an argument is out of range, for instance more edges than ordered pairs of genes.

    Examples
    --------
    >>> from skode.datasets import make_hill_network
    >>> system = make_hill_network(n_genes=8, n_trajectories=3, n_inputs=1, random_state=0)
    >>> system.adjacency.shape, int(system.adjacency.sum())
    ((8, 9), 19)
    """
    check_size("n_genes", n_genes, 2)
    check_size("n_inputs", n_inputs, 0)
    if n_edges is None:
        n_edges = min(round(2.1 * n_genes), n_genes * (n_genes - 1))
    _check_options(n_genes, n_edges, combine, repression, hubs)
    sampling = Sampling(n_trajectories, n_times, dt, noise, irregular, missing)
    streams = open_streams(random_state)
    law = streams.law
    adjacency = np.concatenate((_draw_edges(n_genes, n_edges, hubs, law), _draw_inputs(n_genes, n_inputs, law)), axis=1)
    target, source = np.nonzero(adjacency)
    in_degree = adjacency.sum(axis=1)
    sign = np.where(law.random(target.size) < repression, -1, 1).astype(np.int64)
    gain = law.uniform(0.5, 1.5, target.size)
    gain /= np.bincount(target, gain, minlength=n_genes)[target]
    slope = HillNetwork(
        source=source.astype(np.int64),
        target=target.astype(np.int64),
        sign=sign,
        threshold=law.uniform(0.3, 0.7, target.size),
        coefficient=law.uniform(2.0, 4.0, target.size),
        gain=gain,
        scale=2.0 ** np.maximum(in_degree - 1, 0) if combine == "product" else np.ones(n_genes),
        decay=draw_rates(n_genes, decay, decay_spread, law),
        combine=combine,
    )
    signs: AnyArray = np.zeros(adjacency.shape, dtype=np.int64)
    signs[target, source] = sign
    starts = streams.starts.uniform(0.0, 1.5, size=(n_trajectories, n_genes))
    return simulate(
        slope,
        starts,
        sampling,
        streams,
        name="hill_network",
        adjacency=adjacency,
        names=tuple(f"g{i}" for i in range(n_genes)),
        inputs=streams.starts.uniform(size=(n_trajectories, n_inputs)) if n_inputs else None,
        self_edges=False,
        signs=signs,
    )


def _draw_edges(n_genes: int, n_edges: int, hubs: float, rng: np.random.Generator) -> BoolArray:
    """Draw edges between different genes: one regulator for each first, then more, targets nearly evenly."""
    cap = min(n_genes - 1, -(-n_edges // n_genes) + 1)
    genes = np.arange(n_genes)
    slots = np.concatenate((rng.permutation(genes), rng.permutation(np.repeat(genes, max(cap - 1, 0)))))
    in_degree = np.bincount(slots[:n_edges], minlength=n_genes)
    adjacency = np.zeros((n_genes, n_genes), dtype=np.bool_)
    odds = rng.permutation((1.0 + genes) ** -hubs) if hubs > 0 else None
    for gene in genes:
        others = np.delete(genes, gene)
        share = None if odds is None else odds[others] / odds[others].sum()
        adjacency[gene, rng.choice(others, in_degree[gene], replace=False, p=share)] = True
    return adjacency


def _draw_inputs(n_genes: int, n_inputs: int, rng: np.random.Generator) -> BoolArray:
    adjacency = np.zeros((n_genes, n_inputs), dtype=np.bool_)
    for column in range(n_inputs):
        adjacency[rng.choice(n_genes, _INPUT_TARGETS, replace=False), column] = True
    return adjacency


def _check_options(n_genes: int, n_edges: int, combine: str, repression: float, hubs: float) -> None:
    if not 0 <= n_edges <= n_genes * (n_genes - 1):
        raise ValueError(
            f"n_edges must lie between 0 and the number of pairs, {n_genes * (n_genes - 1)}; got {n_edges}. "
            "No gene regulates itself: ask for fewer edges or more genes."
        )
    if combine not in ("product", "sum"):
        raise ValueError(f"combine must be 'product' or 'sum'; got {combine!r}. Choose how regulators act together.")
    if not 0 <= repression <= 1:
        raise ValueError(f"repression must be a probability in [0, 1]; got {repression}. Pass the share of repressors.")
    if not (isinstance(hubs, numbers.Real) and 0 <= hubs <= 10):
        raise ValueError(f"hubs must be an exponent in [0, 10]; got {hubs!r}. Use 0 for equal genes, 1 for a few hubs.")
