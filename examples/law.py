"""A law written down: noisy trajectories of Lorenz in, equations out, and how far forecasts are right."""

import numpy as np
import torch

from skode import SparseNODERegressorCV, from_trajectories
from skode.datasets import make_lorenz63
from skode.metrics import nrmse

torch.set_num_threads(1)  # matrices this small are slower on two threads
system = make_lorenz63(30, 30, noise=0.05, random_state=3)
X, y, groups = from_trajectories(system.states[:20], system.times[:20])
models = {
    "skode, a law if there is one": SparseNODERegressorCV(random_state=0).fit(X, y, groups=groups),
    "skode, networks": SparseNODERegressorCV(field="per_target", random_state=0).fit(X, y, groups=groups),
}
law, networks = models.values()
print("x0' = 10 (x1 - x0), x1' = 28 x0 - x1 - x0 x2, x2' = x0 x1 - 8/3 x2; 20 trajectories of 30 points, 5 % noise")
print("\n".join(law.equations()))

unseen, times = np.array(system.clean_states[20:]), system.times[0]
scale = np.concatenate(system.states[:20]).std(axis=0)
for name, model in models.items():
    found, truth = model.dependency_matrix_ > 0, system.adjacency
    f1 = 2 * (found & truth).sum() / (found.sum() + truth.sum())
    forecast = model.simulate(unseen[:, 0], times)
    errors = [nrmse(unseen[:, 1:n].reshape(-1, 3), forecast[:, 1:n].reshape(-1, 3), scale=scale) for n in (11, 30)]
    print(f"{name:30s} F1 {f1:.2f}   NRMSE {errors[0]:.3f} over 10 intervals, {errors[1]:.3f} over 29")
for name, made in {
    "persistence": np.repeat(unseen[:, :1], 30, axis=1),
    "training mean": np.broadcast_to(np.concatenate(system.states[:20]).mean(axis=0), unseen.shape),
}.items():
    errors = [nrmse(unseen[:, 1:n].reshape(-1, 3), made[:, 1:n].reshape(-1, 3), scale=scale) for n in (11, 30)]
    print(f"{name:30s}           NRMSE {errors[0]:.3f} over 10 intervals, {errors[1]:.3f} over 29")
