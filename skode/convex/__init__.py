"""Selection of edges by convex problems: linear fields of hundreds to thousands of variables."""

from skode.convex._hubs import source_prices
from skode.convex._products import AbstractProducts, GramProducts, RowProducts
from skode.convex._refit import RESIDUAL_FLOOR, ebic, refit
from skode.convex._rows import row_means, spread
from skode.convex.path import LassoPath, alpha_max, lasso_path
from skode.convex.select import EBIC_GAMMA, SHARE_OF_ROWS, Known, Selection, adaptive_factors, select
from skode.convex.sources import select_sources
from skode.convex.splines import SplineSelection, edge_evidence, select_splines, spline_features

__all__ = [
    "EBIC_GAMMA",
    "RESIDUAL_FLOOR",
    "SHARE_OF_ROWS",
    "AbstractProducts",
    "GramProducts",
    "Known",
    "LassoPath",
    "RowProducts",
    "Selection",
    "SplineSelection",
    "adaptive_factors",
    "alpha_max",
    "ebic",
    "edge_evidence",
    "lasso_path",
    "refit",
    "row_means",
    "select",
    "select_sources",
    "select_splines",
    "source_prices",
    "spline_features",
    "spread",
]
