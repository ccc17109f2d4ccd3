"""The main job: learn blood formation from one donor, forecast two others, and write the gene graph.

Data: 529 genes in single bone-marrow cells along three lineages, ordered by pseudotime. skode is trained on one donor
(s1d2, or another with --train) and sees nothing of the other two but the mean of their first five cells.

    python examples/quickstart.py --out skode-output

The equation lives in a few principal components of the smoothed training cells: 529 genes measured in three
trajectories do not identify 529 equations. Edges between genes follow from its Jacobian by the chain rule.
"""

import argparse
import time
from pathlib import Path

import networkx as nx
import numpy as np
import torch
from _hematopoiesis import (
    Array,
    Lineage,
    bin_error,
    binned,
    cell_error,
    load_lineages,
    resampled,
    smooth_error,
    trivial_forecasts,
)
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from skode import SparseNODERegressor, from_trajectories
from skode.datasets import Hematopoiesis, load_hematopoiesis

DONORS = ("s1d2", "s2d1", "s1d1")  # the first trained the publication's models
VARIANCE = 0.9  # of the smoothed training trajectories, that the components must explain
ALPHA = 0.1
N_COPIES = 32
N_EDGES, MOST_TARGETS = 100, 5  # in the graph, and of one regulator
REPORTED = {"s2d1": 0.0384, "s1d1": 0.0365}  # one published PathReg checkpoint, cells, published scaling
ONE_HOT = np.eye(3)


def train_model(train: list[Lineage], seed: int) -> tuple[PCA, SparseNODERegressor]:
    """Fit components on the smoothed cells, and the sparse ODE on resampled trajectories."""
    pca = PCA(VARIANCE).fit(np.vstack([lineage.smooth(binned(lineage.times)) for lineage in train]))
    times, states, number = zip(*resampled(train, N_COPIES, seed), strict=True)
    X, y, _ = from_trajectories([pca.transform(x) for x in states], times, inputs=ONE_HOT[list(number)])
    model = SparseNODERegressor(
        alpha=ALPHA,
        hidden_layer_sizes=8,
        training="trajectory",  # three lineages are too few to trust slopes: fit whole forecasts
        initial_state="observed",  # a forecast will start from five noisy cells, so training does too
        max_iter=300,
        random_state=seed,
    )
    return pca, model.fit(X, y)


def forecast(pca: PCA, model: SparseNODERegressor, test: list[Lineage]) -> list[Array]:
    """Forecast every cell of every lineage from the donor's start."""
    return [
        pca.inverse_transform(model.simulate(pca.transform(lineage.start[None]), lineage.times, flag)[0])
        for lineage, flag in zip(test, ONE_HOT, strict=True)
    ]


def all_forecasts(pca: PCA, model: SparseNODERegressor, train: list[Lineage], test: list[Lineage]) -> dict:
    """Every row of the table: baselines, the model, and equal-weight means of each with the constant."""
    rows = trivial_forecasts(train, test)
    rows["skode"] = forecast(pca, model, test)
    constant = rows["constant (training lineage mean)"]
    for name in ("smooth (training trajectory)", "skode"):
        label = f"mean of constant and {name.split(' ')[0]}"
        rows[label] = [0.5 * (a + b) for a, b in zip(constant, rows[name], strict=True)]
    return rows


def print_table(title: str, tests: dict[str, list[Lineage]], rows: dict[str, dict], reported: bool) -> None:
    """Print the errors of all forecasts for the test donors."""
    print(f"\n{title}: sum over lineages of the MSE, lower is better")
    print(f"{'':36}" + "".join(f"{donor:^28}" for donor in tests))
    print(f"{'':36}" + f"{'cells':>9}{'smooth':>9}{'20 bins':>9} " * len(tests))
    for name in next(iter(rows.values())):
        print(f"{name:36}", end="")
        for donor, test in tests.items():
            made = rows[donor][name]
            print("".join(f"{error(test, made):9.5f}" for error in (cell_error, smooth_error, bin_error)), end=" ")
        print()
    if reported:
        print(f"{'PathReg, as its authors printed':36}" + "".join(f"{REPORTED[d]:9.4f}{'':19}" for d in tests))


def gene_edges(pca: PCA, model: SparseNODERegressor, train: list[Lineage]) -> tuple[Array, Array]:
    """Jacobian between genes over the training data: RMS and mean, (target, source), in units of the data.

    df_i/dx_j of the genes is C' (df/dz) C with the components C; it is scaled by sd(x_j) / sd(dx_i/dt).
    """
    components = pca.components_
    jacobians, slopes, values = [], [], []
    for lineage, flag in zip(train, ONE_HOT, strict=True):
        states = pca.transform(lineage.smooth(binned(lineage.times)))
        step = 1e-3 * states.std()
        here = model.predict_derivative(states, flag)
        columns = [(model.predict_derivative(states + step * e, flag) - here) / step for e in np.eye(states.shape[1])]
        jacobians.append(np.stack(columns, axis=-1))  # (state, target component, source component)
        slopes.append(here @ components)
        values.append(states @ components)
    jacobian = np.concatenate(jacobians)
    unit = np.concatenate(values).std(axis=0) / np.maximum(np.concatenate(slopes).std(axis=0), 1e-12)[:, None]
    mean = components.T @ jacobian.mean(axis=0) @ components
    square = sum((components.T @ one @ components) ** 2 for one in jacobian) / len(jacobian)
    return np.sqrt(square) * unit, mean * unit


def regulator_graph(data: Hematopoiesis, strength: Array, effect: Array) -> nx.DiGraph:
    """Turn the strongest edges from regulators to other genes into a graph, at most five per regulator."""
    allowed = strength * data.is_regulator
    np.fill_diagonal(allowed, 0.0)
    graph = nx.DiGraph()
    for flat in np.argsort(allowed, axis=None)[::-1]:
        i, j = np.unravel_index(flat, allowed.shape)
        target, source = data.genes[i], data.genes[j]
        if graph.number_of_edges() == N_EDGES:
            break
        if source in graph and graph.out_degree(source) == MOST_TARGETS:
            continue
        weight, mean = float(strength[i, j]), float(effect[i, j])
        sign = int(np.sign(mean)) if abs(mean) >= 0.9 * weight else 0
        graph.add_edge(source, target, weight=weight, effect=mean, sign=sign, in_prior=int(data.prior[i, j]))
    return graph


def strongest(graph: nx.DiGraph, n_targets: int) -> nx.DiGraph:
    """Keep the strongest edges of every regulator."""
    kept = nx.DiGraph()
    for source, target, edge in graph.edges(data=True):
        if source not in kept or kept.out_degree(source) < n_targets:
            kept.add_edge(source, target, **edge)
    return kept


def print_graph(data: Hematopoiesis, strength: Array, graph: nx.DiGraph, model: SparseNODERegressor) -> None:
    """Print the strongest edges, and how they compare with the prior network."""
    component_edges = model.get_dependency_graph()
    print(f"\nEquation: {component_edges.number_of_edges()} of {model.dependency_matrix_.size} possible edges kept.")
    print("Strongest edge of the strongest regulators (+ activates, - represses, * in the motif prior):")
    edges = sorted(strongest(graph, 1).edges(data=True), key=lambda one: -one[2]["weight"])
    for source, target, edge in edges[:10]:
        mark = {1: "+", -1: "-", 0: "?"}[edge["sign"]]
        print(f"  {source:>10} -> {target:10} {mark} {edge['weight']:.2f} {'*' if edge['in_prior'] else ''}")
    block = np.ix_(data.is_target, data.is_regulator)
    auroc = roc_auc_score(data.prior[block].ravel(), strength[block].ravel())
    print(f"All regulator x target pairs against the prior: AUROC {auroc:.2f} (chance .50).")
    print("Without prior knowledge these cells do not tell regulators apart: take edges as hypotheses.")


def draw(path: Path, data: Hematopoiesis, tests: dict, rows: dict, graph: nx.DiGraph) -> None:
    """Draw forecasts of three genes of one donor, and the strongest edges."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        print("No figure: matplotlib is not installed. Install it with: pip install matplotlib")
        return
    donor = list(tests)[1]
    test, made = tests[donor], rows[donor]
    moves = np.vstack(made["smooth (training trajectory)"]).std(axis=0)
    genes = np.argsort(-moves)[:3]
    figure = plt.figure(figsize=(13, 6.5), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(1.15, 1))
    axes = left.subplots(3, 3, sharex=True, sharey="row")
    styles = {
        "skode": ("tab:red", "-"),
        "smooth (training trajectory)": ("tab:blue", "--"),
        "constant (training lineage mean)": ("0.4", ":"),
    }
    for column, lineage in enumerate(test):
        axes[0, column].set_title(lineage.name)
        axes[-1, column].set_xlabel("pseudotime")
        for row, gene in enumerate(genes):
            axis = axes[row, column]
            axis.plot(
                *(binned(lineage.times), binned(lineage.cells)[:, gene]),
                "o",
                ms=3,
                color="0.7",
                label=f"{donor}, bins",
            )
            for name, (colour, style) in styles.items():
                axis.plot(lineage.times, made[name][column][:, gene], style, color=colour, label=name)
            if column == 0:
                axis.set_ylabel(data.genes[gene])
    left.suptitle(f"Forecasts of donor {donor} from its first five cells")
    left.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    axis = right.subplots()
    right.suptitle("Two strongest edges of every regulator in the graph\n(green activates, red represses)")
    axis.set_axis_off()
    shown = strongest(graph, 2)
    place = nx.spring_layout(shown, seed=1, k=0.9)
    regulator = {name for name, is_one in zip(data.genes, data.is_regulator, strict=True) if is_one}
    colours = ["#f4c27a" if node in regulator else "#cfd8e3" for node in shown]
    edge_colours = [{1: "tab:green", -1: "tab:red", 0: "0.6"}[sign] for *_, sign in shown.edges(data="sign")]
    nx.draw_networkx(shown, place, ax=axis, node_color=colours, edge_color=edge_colours, node_size=420, font_size=7)
    figure.savefig(path, dpi=130)
    plt.close(figure)
    print(f"Figure: {path}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("skode-output"), help="folder for the graph and the figure")
    parser.add_argument("--train", choices=DONORS, default=DONORS[0], help="training donor; the others are the test")
    parser.add_argument("--seed", type=int, default=0, help="of the resampled trajectories and of the network")
    arguments = parser.parse_args()
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # matrices this small are slower on two threads
    began = time.perf_counter()
    data = load_hematopoiesis(arguments.train)
    train = load_lineages(arguments.train)
    fit_began = time.perf_counter()
    pca, model = train_model(train, arguments.seed)
    seconds = time.perf_counter() - fit_began
    print(f"Trained on {arguments.train} in {seconds:.1f} s: {pca.n_components_} components, alpha {ALPHA}.")
    tests, rows = {}, {}
    for title, scales in (("Published scaling", None), ("Clean scaling", [lineage.scale for lineage in train])):
        scaled = {donor: load_lineages(donor, scales) for donor in DONORS if donor != arguments.train}
        made = {donor: all_forecasts(pca, model, train, test) for donor, test in scaled.items()}
        print_table(title, scaled, made, reported=scales is None and arguments.train == DONORS[0])
        if scales is None:
            tests, rows = scaled, made
    strength, effect = gene_edges(pca, model, train)
    graph = regulator_graph(data, strength, effect)
    print_graph(data, strength, graph, model)
    nx.write_graphml(graph, out / "graph.graphml")
    print(f"\nGraph: {out / 'graph.graphml'} ({graph.number_of_edges()} edges)")
    draw(out / "quickstart.png", data, tests, rows, graph)
    print(f"Whole job: {time.perf_counter() - began:.1f} s.")


if __name__ == "__main__":
    main()
