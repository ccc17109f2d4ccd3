"""Human motion: forecast recorded sequences from their first frame.

    python examples/benchmarks/motion_capture.py [--seeds 6] [--components 5]

The usual protocol: channels are standardised and projected on the principal components of the training sequences, the
dynamics are learned there (every third frame), and the mean squared error of the test sequences is taken in the 50
channels. Prints one table: for every model the median over random_state, smallest and largest, and seconds; beside it
forecasts that know no dynamics, ridge regression, and what the projection alone leaves. GPODE is reported to reach 9.1
(subject 09) and 10.1 (subject 35) after its own preprocessing ("Variational multiple shooting for Bayesian ODEs with
Gaussian processes", 2022, arXiv 2106.10905); the first is below what five components of the training sequences leave.
"""

from __future__ import annotations

import argparse
import time
import warnings

import numpy as np
import torch
from _baselines import mean_trajectory, persistence, start_or_mean, training_mean
from _regressions import ridge
from _sets import BenchmarkSet
from sklearn.decomposition import PCA
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skode import SparseNODERegressor, SparseNODERegressorCV, from_trajectories
from skode.datasets import load_mocap

EVERY = 3
"""Of the frames, 120 a second, that the models see in training."""
MODELS = {"skode": SparseNODERegressor, "skode-cv": SparseNODERegressorCV}


def main() -> None:
    """Fit, forecast, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--components", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    print(f"{arguments.components} components, {arguments.seeds} seeds; mean squared error, degrees squared\n")
    print("| subject | method | MSE, median | smallest | largest | seconds |\n|---|---|---|---|---|---|")
    for subject in ("09", "35"):
        for name, errors, seconds in rows(subject, arguments.components, arguments.seeds):
            low, middle, high = np.min(errors), np.median(errors), np.max(errors)
            print(f"| {subject} | {name} | {middle:.1f} | {low:.1f} | {high:.1f} | {seconds:.2g} |", flush=True)


def rows(subject: str, n_components: int, n_seeds: int):
    """Name, errors over seeds and median seconds of every method."""
    motion = load_mocap(subject)
    code = make_pipeline(StandardScaler(), PCA(n_components)).fit(np.concatenate(motion.train))
    train, test = ([code.transform(sequence) for sequence in part] for part in (motion.train, motion.test))
    data = BenchmarkSet(
        name=f"motion-{subject}",
        states=[sequence[::EVERY] for sequence in train],
        times=[motion.times[::EVERY]] * len(train),
        truth=np.ones((n_components, n_components)),  # not known, and not compared
        self_edges=True,
        test=np.array(test),
        test_times=motion.times,
    )

    def error(forecast: np.ndarray) -> float:
        decoded = [code.inverse_transform(sequence) for sequence in np.asarray(forecast)]
        return float(np.mean((np.array(decoded) - motion.test) ** 2))

    X, y, groups = from_trajectories(data.states, data.times)
    for name, model in MODELS.items():
        errors, seconds = [], []
        for seed in range(n_seeds):
            began = time.perf_counter()
            fitted = model(random_state=seed).fit(X, y, groups=groups)
            seconds.append(time.perf_counter() - began)
            errors.append(error(fitted.simulate(data.test[:, 0], data.test_times)))
        yield name, errors, np.median(seconds)
    yield "ridge", [error(ridge(False, data, 0).forecast)], 0.0
    for baseline in (persistence, training_mean, start_or_mean, mean_trajectory):
        yield baseline.__name__.replace("_", "-"), [error(baseline(data))], 0.0
    yield "the components alone", [error(data.test)], 0.0


if __name__ == "__main__":
    main()
