"""Hare and lynx in ten lines: fit the pelts of 1900 to 1914, forecast 1915 to 1920, print the graph."""

import networkx as nx
import numpy as np
import torch

from skode import SparseNODERegressor, from_trajectories
from skode.datasets import load_hare_lynx
from skode.metrics import nrmse

torch.set_num_threads(1)  # matrices this small are slower on two threads
pelts = load_hare_lynx()
logs, known = np.log(pelts.states), pelts.year < 1915
X, y, _ = from_trajectories(logs[known], pelts.times[known])
model = SparseNODERegressor(random_state=0).fit(X, y)
later = pelts.times[~known] - pelts.times[known][-1]
forecast = np.exp(model.simulate(logs[known][-1], later)[0])

truth = pelts.states[~known]
print("Thousands of pelts (hare, lynx), forecast from the counts of 1914")
for year, seen, said in zip(pelts.year[~known], truth, forecast, strict=True):
    print(f"  {year}  counted {seen[0]:5.1f} {seen[1]:5.1f}   skode {said[0]:5.1f} {said[1]:5.1f}")
rows = {
    "skode": forecast,
    "the counts of 1914 stay": np.tile(pelts.states[known][-1], (len(truth), 1)),
    "mean of 1900 to 1914": np.tile(pelts.states[known].mean(axis=0), (len(truth), 1)),
}
for name, made in rows.items():
    print(f"NRMSE {nrmse(truth, made, scale=pelts.states[known].std(axis=0)):.2f}  {name}")
graph = nx.relabel_nodes(model.get_dependency_graph(), {"x0": "hare", "x1": "lynx"})
for source, target, edge in graph.edges(data=True):
    print(f"{source} -> {target}  strength {edge['weight']:.2f}  sign {edge['sign']:+d}")
