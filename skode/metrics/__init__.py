"""How good a recovered graph, a sparse network and a forecast are; numpy in, plain floats out."""

from __future__ import annotations

from skode.metrics.forecast import (
    mean_skill,
    mse,
    nrmse,
    persistence_skill,
    r2,
    skill,
)
from skode.metrics.graph import (
    GraphScores,
    edge_auprc,
    edge_auroc,
    edge_balanced_accuracy,
    edge_f1,
    edge_precision,
    edge_prevalence,
    edge_recall,
    graph_scores,
    normalised_shd,
)
from skode.metrics.horizon import HorizonErrors, nrmse_by_horizon, valid_prediction_time
from skode.metrics.sparsity import (
    feature_sparsity,
    open_paths,
    spurious_edge_share,
    spurious_feature_share,
    weight_sparsity,
)

__all__ = [
    "GraphScores",
    "HorizonErrors",
    "edge_auprc",
    "edge_auroc",
    "edge_balanced_accuracy",
    "edge_f1",
    "edge_precision",
    "edge_prevalence",
    "edge_recall",
    "feature_sparsity",
    "graph_scores",
    "mean_skill",
    "mse",
    "normalised_shd",
    "nrmse",
    "nrmse_by_horizon",
    "open_paths",
    "persistence_skill",
    "r2",
    "skill",
    "spurious_edge_share",
    "spurious_feature_share",
    "valid_prediction_time",
    "weight_sparsity",
]
