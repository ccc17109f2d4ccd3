"""Make docs/images/overview.png: noisy trajectories of Lorenz-96 in, forecast and graph out.

    python examples/make_figure.py

Trained on 20 short trajectories with 5 % noise; the forecast starts from the true state of an unseen trajectory.
"""

from pathlib import Path

import matplotlib
import networkx as nx
import numpy as np
import torch

from skode import SparseNODERegressor, from_trajectories
from skode.datasets import make_lorenz96
from skode.metrics import graph_scores, nrmse

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402

PATH = Path(__file__).resolve().parents[1] / "docs" / "images" / "overview.png"
N_TRAIN, N_SHOWN = 20, 4
BLUE, RED, GREY = "#2b6cb0", "#c53030", "#a0aec0"


def main() -> None:
    torch.set_num_threads(1)
    system = make_lorenz96(10, n_trajectories=N_TRAIN + 5, n_times=30, dt=0.05, noise=0.05, random_state=1)
    train, test = slice(0, N_TRAIN), slice(N_TRAIN, None)
    X, y, groups = from_trajectories(system.states[train], system.times[train])
    model = SparseNODERegressor(random_state=0).fit(X, y, groups=groups)

    truth = np.stack(system.clean_states[test])
    made = np.stack([model.simulate(x[0], t)[0] for x, t in zip(truth, system.times[test], strict=True)])
    error = nrmse(truth[:, 1:].reshape(-1, 10), made[:, 1:].reshape(-1, 10))
    found = graph_scores(system.adjacency, scores=model.dependency_scores_, matrix=model.dependency_matrix_)
    print(f"Lorenz-96, {N_TRAIN} x 30 points, 5 % noise: {found.n_edges} edges, {found.n_true} in truth")
    print(f"F1 {found.f1:.2f}, AUROC {found.auroc:.2f}, AUPRC {found.auprc:.2f} (chance {found.prevalence:.2f})")
    print(f"Forecast of {len(truth)} unseen trajectories: NRMSE {error:.2f}")

    figure = plt.figure(figsize=(11, 4.6), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.5, 1))
    axes = left.subplots(N_SHOWN, 1, sharex=True)
    times = system.times[test][0]
    fine = np.linspace(0, times[-1], 300)
    curve = model.simulate(truth[0, 0], fine)[0]
    for variable, axis in enumerate(axes):
        axis.plot(times, system.states[test][0][:, variable], "o", ms=4, color=GREY, label="unseen data, 5 % noise")
        axis.plot(times, truth[0, :, variable], color="0.25", lw=1, ls=":", label="truth")
        axis.plot(fine, curve[:, variable], color=BLUE, lw=1.8, label="skode, from the first state")
        axis.set_ylabel(f"$x_{variable}$", rotation=0, labelpad=10, va="center")
        axis.spines[["top", "right"]].set_visible(False)
    axes[-1].set_xlabel("time")
    left.suptitle("Forecast of an unseen trajectory")
    left.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)

    axis = right.subplots()
    axis.set_axis_off()
    axis.set_aspect("equal")
    names = model.state_names_
    place = nx.circular_layout(list(names))
    graph = nx.DiGraph([edge for edge in model.get_dependency_graph().edges if edge[0] != edge[1]])
    real = nx.DiGraph([(names[j], names[i]) for i, j in np.argwhere(system.adjacency) if i != j])
    options = {"ax": axis, "node_size": 520, "arrowsize": 11, "connectionstyle": "arc3,rad=0.12"}
    nx.draw_networkx_nodes(real, place, ax=axis, node_size=520, node_color="white", edgecolors="0.25")
    nx.draw_networkx_labels(real, place, {n: f"$x_{n[1:]}$" for n in names}, ax=axis)
    for edges, colour, style in (
        ([e for e in graph.edges if real.has_edge(*e)], BLUE, "solid"),
        ([e for e in graph.edges if not real.has_edge(*e)], RED, "solid"),
        ([e for e in real.edges if not graph.has_edge(*e)], GREY, "dashed"),
    ):
        nx.draw_networkx_edges(real, place, edges, edge_color=colour, style=style, width=1.4, **options)
    right.suptitle("Recovered graph (self-edges not drawn)")
    handles = [
        plt.Line2D([], [], color=BLUE, label="found, true"),
        plt.Line2D([], [], color=RED, label="found, false"),
        plt.Line2D([], [], color=GREY, ls="--", label="missed"),
    ]
    right.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    PATH.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PATH, dpi=120)
    print(f"Figure: {PATH.name}")


if __name__ == "__main__":
    main()
