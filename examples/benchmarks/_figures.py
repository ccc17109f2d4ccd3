"""Every figure of one answer: its graph, its forecasts, its knock-outs."""

from __future__ import annotations

import numpy as np
from _answers import Answer
from _sets import BenchmarkSet, Probes
from _tables import COLUMNS

from skode.metrics import graph_scores, valid_prediction_time


def judge(data: BenchmarkSet, answer: Answer) -> dict[str, float]:
    """Every figure of one answer; nan where the method has no say."""
    found: dict[str, float] = {}
    if answer.scores is not None or answer.matrix is not None:
        found |= _graph(data, answer)
    if answer.forecast is not None:
        found |= _forecast(data, answer.forecast)
    if answer.unseen is not None and data.probes is not None:
        late = data.probes.times > data.probes.times[0]
        found["OOD"] = float(((answer.unseen - data.probes.unseen)[:, late] ** 2).mean())
    if answer.effect is not None and data.probes is not None:
        found |= knockout_figures(data.probes, answer.effect)
    return {column: found.get(column, float("nan")) for column in COLUMNS}


def knockout_figures(probes: Probes, effect: np.ndarray) -> dict[str, float]:
    """Forecast effects of knock-outs against true ones, over genes that are not clamped and times after the start.

    ``effect`` is (trajectory, time, d). A method for which nothing moves has no correlation.
    """
    moved = np.broadcast_to(~probes.clamped[:, None, :], effect.shape)[:, 1:]
    true, found = (probes.knockout - probes.control)[:, 1:][moved], effect[:, 1:][moved]
    known = found.std() > 0 and true.std() > 0
    return {
        "KO r": float(np.corrcoef(true, found)[0, 1]) if known else float("nan"),
        "KO MSE": float(((true - found) ** 2).mean()),
    }


def _graph(data: BenchmarkSet, answer: Answer) -> dict[str, float]:
    graph = graph_scores(
        data.truth, scores=answer.scores, matrix=answer.matrix, self_edges=data.self_edges, targets=data.targets
    )
    return {
        "AUROC": graph.auroc,
        "AUPR": graph.auprc,
        "F1": graph.f1,
        "precision": graph.precision,
        "recall": graph.recall,
        "balanced": graph.balanced_accuracy,
        "SHD": graph.shd,
        "wrong": np.nan if graph.n_edges is None else round(graph.shd * graph.n_entries),
        "edges": np.nan if graph.n_edges is None else graph.n_edges,
    }


def _forecast(data: BenchmarkSet, forecast: np.ndarray) -> dict[str, float]:
    t = data.test_times
    late = (t > t[0]) & (t <= t[0] + data.horizon)
    sd = data.test.reshape(-1, data.test.shape[-1]).std(0)
    moving = sd > 1e-6
    error = ((forecast - data.test)[:, late][..., moving]) / sd[moving]
    found = {
        "NRMSE": float(np.sqrt((error**2).mean())),
        "MSE": float(((forecast - data.test)[:, late] ** 2).mean()),
    }
    if data.period is not None:
        n, k = data.test.shape[:2]
        times = valid_prediction_time(
            np.tile(t, n),
            data.test.reshape(n * k, -1),
            forecast.reshape(n * k, -1),
            trajectory=np.repeat(np.arange(n), k),
            period=data.period,
        )
        found["VPT"] = float(times.mean())
    return found
