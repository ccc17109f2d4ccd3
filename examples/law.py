"""Laws written down: noisy trajectories of Lorenz and of an epidemic in, equations and forecasts out."""

import numpy as np
import torch
from scipy.integrate import solve_ivp

from skode import SparseNODERegressorCV, from_trajectories
from skode.datasets import make_lorenz63
from skode.metrics import nrmse

torch.set_num_threads(1)  # matrices this small are slower on two threads


def compare(states, times, unseen, at, graph, ends):
    """Fit a law and networks, and forecast unseen trajectories as far as each of some numbers of intervals."""
    X, y, groups = from_trajectories(states, times)
    models = {
        "skode, a law if there is one": SparseNODERegressorCV(random_state=0).fit(X, y, groups=groups),
        "skode, networks": SparseNODERegressorCV(field="per_target", random_state=0).fit(X, y, groups=groups),
    }
    every = np.concatenate(states)
    forecasts = {name: model.simulate(unseen[:, 0], at) for name, model in models.items()}
    forecasts["persistence"] = np.repeat(unseen[:, :1], len(at), axis=1)
    forecasts["training mean"] = np.broadcast_to(every.mean(axis=0), unseen.shape)
    print("\n".join(next(iter(models.values())).equations()))
    for name, forecast in forecasts.items():
        score = " " * 7
        if name in models:
            found = models[name].dependency_matrix_ > 0
            score = f"F1 {2 * (found & graph).sum() / (found.sum() + graph.sum()):.2f}"
        d, scale = unseen.shape[2], every.std(axis=0)
        errors = [
            nrmse(unseen[:, 1 : n + 1].reshape(-1, d), forecast[:, 1 : n + 1].reshape(-1, d), scale=scale) for n in ends
        ]
        far = ", ".join(f"{error:.3f} over {n}" for error, n in zip(errors, ends, strict=True))
        print(f"{name:30s} {score}   NRMSE {far} intervals")


print("x0' = 10 (x1 - x0), x1' = 28 x0 - x1 - x0 x2, x2' = x0 x1 - 8/3 x2; 20 trajectories of 30 points, 5 % noise")
system = make_lorenz63(30, 30, noise=0.05, random_state=3)
unseen = np.array(system.clean_states[20:])
compare(system.states[:20], system.times[:20], unseen, system.times[0], system.adjacency, (10, 29))


def epidemic(_, x):
    """Susceptible, infected and recovered, with births and deaths; infections peak between two observations."""
    s, i, r = x
    return [0.05 - 1.5 * s * i - 0.05 * s, 1.5 * s * i - 0.45 * i, 0.4 * i - 0.05 * r]


print("\ns' = .05 - 1.5 s i - .05 s, i' = 1.5 s i - .45 i, r' = .4 i - .05 r; 20 x 25 irregular times, 5 % noise")
draw = np.random.default_rng(0)
at = np.linspace(0, 20, 25)
times = [np.concatenate([[0], np.sort(draw.uniform(0, 20, 24))]) for _ in range(20)] + [at] * 10
clean = [solve_ivp(epidemic, (0, 20), draw.uniform(0.1, 2, 3), t_eval=t, rtol=1e-8, atol=1e-9).y.T for t in times]
sd = np.concatenate(clean[:20]).std(axis=0)
noisy = [x + 0.05 * sd * draw.normal(size=x.shape) for x in clean[:20]]
graph = np.array([[1, 1, 0], [1, 1, 0], [0, 1, 1]], dtype=bool)
compare(noisy, times[:20], np.array(clean[20:]), at, graph, (10, 24))
