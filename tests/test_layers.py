"""The layers of the package, read from its imports: what a module may know about.

``ALLOWED`` names for each module, or package of modules, which others it may import; from its own entry it
always may. The longest matching name counts. A new module is one line here, and the table itself must point
downwards only.
"""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "skode"

TYPES = {"skode._typing"}
# What user shapes become: trajectories in numpy.
SHAPES = TYPES | {
    "skode._alignment",
    "skode._layout",
    "skode._names",
    "skode._question_checks",
    "skode._steady",
    "skode._ties",
    "skode._trajectories",
    "skode._validation",
}
# Trajectories, smoothed and standardised.
PREPARED = SHAPES | {"skode._prepare", "skode._prepared", "skode._scales", "skode._start_velocity", "skode.smooth"}
# The parts that meet in _fit and nowhere else.
PARTS = {
    "skode._batch",
    "skode._dynamics",
    "skode._latent",
    "skode._problem",
    "skode.fields",
    "skode.integrate",
    "skode._capacity",
    "skode._curvature",
    "skode.objectives",
    "skode.penalties",
    "skode.quasi_newton",
    "skode.recipe",
    "skode.solvers",
}
TOOLS = {"skode.graph", "skode.metrics"}
FIT = (
    TYPES
    | PREPARED
    | PARTS
    | {"skode._fit", "skode._fitted", "skode._parameters", "skode._predict", "skode._train", "skode.prior"}
)

ALLOWED: dict[str, set[str]] = {
    "skode._typing": set(),
    # user shapes -> trajectories
    "skode._layout": TYPES,
    "skode._ties": TYPES,
    "skode._names": TYPES | {"skode._layout"},
    "skode._validation": TYPES,
    "skode._question_checks": TYPES | {"skode._validation"},
    "skode._trajectories": TYPES | {"skode._layout", "skode._question_checks", "skode._ties"},
    "skode._alignment": TYPES | {"skode._layout", "skode._ties", "skode._trajectories"},
    "skode._chains": TYPES | {"skode._ties", "skode._trajectories"},
    "skode._steady": TYPES | {"skode._layout", "skode._validation"},
    "skode._segments": TYPES | {"skode._ties"},
    "skode._reading": TYPES | {"skode._segments", "skode._ties"},
    "skode.builders": TYPES
    | {"skode._layout", "skode._reading", "skode._segments", "skode._ties", "skode._validation"},
    "skode.prior": TYPES | {"skode._validation"},
    # numpy preparation
    "skode._scales": TYPES,
    "skode._spline": TYPES,
    "skode._bends": TYPES,
    "skode._strength": TYPES | {"skode._bends", "skode._spline"},
    "skode._movement": TYPES | {"skode._strength"},
    "skode.smooth": TYPES | {"skode._movement", "skode._spline", "skode._strength"},
    "skode._blas": set(),
    "skode._memory": set(),
    "skode._compact": TYPES,
    "skode._parallel": {"skode._blas"},
    "skode._pieces": TYPES | {"skode._chains", "skode._knots", "skode.smooth"},
    "skode._prepared": TYPES | {"skode._scales", "skode.smooth"},
    "skode._knots": TYPES | {"skode._trajectories"},
    "skode._units": TYPES | {"skode._scales", "skode._trajectories"},
    "skode._prepare": SHAPES
    | {
        "skode._blas",
        "skode._chains",
        "skode._knots",
        "skode._pieces",
        "skode._prepared",
        "skode._scales",
        "skode._units",
        "skode.smooth",
    },
    "skode._bridge": TYPES,
    "skode._linear_field": TYPES,
    "skode._decay": TYPES | {"skode._bridge", "skode._linear_field", "skode.smooth"},
    "skode._kalman": TYPES | {"skode._bridge"},
    "skode._model_smoothing": TYPES | {"skode._bridge", "skode._kalman", "skode._linear_field"},
    # many variables: numpy alone
    "skode.convex": TYPES | {"skode._parallel"},
    "skode._identifiability": TYPES | {"skode._blas", "skode._prepared"},
    "skode._independent_rows": TYPES | {"skode._bridge"},
    "skode._interval_rows": TYPES | {"skode._bridge", "skode._decay", "skode._model_smoothing", "skode.smooth"},
    "skode._chooser": TYPES | {"skode._independent_rows", "skode._interval_rows", "skode.convex"},
    "skode._screen": TYPES | {"skode._bridge", "skode._chooser", "skode._interval_rows"},
    # the parts: a field does not know what is penalised, a penalty nothing of ODEs, a solver only callables
    # and tensors
    "skode.fields": TYPES,
    "skode.integrate": TYPES,
    "skode.penalties": TYPES | {"skode.fields"},
    "skode.recipe": TYPES,
    "skode._batch": TYPES,
    "skode._early_stopping": TYPES,
    "skode.solvers": TYPES | {"skode._early_stopping"},
    "skode.quasi_newton": TYPES | {"skode._early_stopping", "skode.solvers"},
    "skode.least_squares": TYPES,
    "skode._dynamics": TYPES | {"skode._scales", "skode.fields", "skode.integrate"},
    "skode._latent": TYPES | {"skode._dynamics", "skode.fields", "skode.integrate"},
    "skode._matching": TYPES | {"skode.fields"},
    "skode.objectives": TYPES
    | {"skode._dynamics", "skode._latent", "skode._matching", "skode.fields", "skode.integrate"},
    # where they meet
    "skode._problem": TYPES
    | {"skode._dynamics", "skode._prepare", "skode._prepared", "skode._ties", "skode.objectives"},
    "skode._rematch": TYPES | PARTS | {"skode._bridge", "skode._parallel", "skode._prepared"},
    "skode._readers": TYPES
    | PARTS
    | {"skode._amounts", "skode._capacity", "skode._curve_fits", "skode._memory", "skode._parallel", "skode._refit"},
    "skode._amounts": TYPES | {"skode._prepared"},
    "skode._curve_fits": TYPES
    | {"skode._amounts", "skode._parallel", "skode._refit", "skode.fields", "skode.least_squares", "skode.objectives"},
    "skode._curve_search": TYPES | {"skode._curve_fits", "skode.convex", "skode.fields"},
    "skode._reading_search": TYPES | PARTS | {"skode._curve_fits", "skode._curve_search", "skode._readers"},
    "skode._additive": TYPES
    | PARTS
    | {
        "skode._amounts",
        "skode._reading_search",
        "skode._bridge",
        "skode._memory",
        "skode._prepared",
        "skode._readers",
        "skode._rematch",
        "skode._screen",
    }
    | {"skode._train"},
    "skode._refit": TYPES | {"skode._parallel", "skode.fields", "skode.least_squares", "skode.objectives"},
    "skode._capacity": TYPES | {"skode._dynamics", "skode._problem", "skode.fields", "skode.objectives"},
    "skode._constraints": TYPES | {"skode.fields"},
    "skode._curvature": TYPES | {"skode._evidence", "skode.fields", "skode.objectives"},
    "skode._evidence": TYPES,
    "skode._alike": TYPES | {"skode.integrate", "skode.objectives"},
    "skode._stage": TYPES | PARTS | {"skode._alike", "skode._constraints", "skode._scales"},
    "skode._threads": TYPES | PARTS,
    "skode._train": TYPES | PARTS | {"skode._capacity", "skode._constraints", "skode._stage", "skode._threads"},
    "skode._parts": TYPES | PARTS | {"skode._stage", "skode._train"},
    "skode._reach": TYPES
    | PARTS
    | {
        "skode._parallel",
        "skode._parts",
        "skode._prepared",
        "skode._scales",
        "skode._stage",
        "skode._train",
    },
    "skode._calm": TYPES | PARTS | {"skode._prepared", "skode._reach", "skode._train"},
    "skode._start_velocity": TYPES | {"skode._prepared"},
    "skode._points": TYPES | {"skode._dynamics", "skode.fields", "skode.integrate"},
    "skode._equations": TYPES | {"skode._fitted", "skode.fields"},
    "skode._fitted": TYPES | PARTS | {"skode._compact", "skode._scales", "skode._points", "skode._start_velocity"},
    "skode._dependencies": TYPES | PARTS | {"skode._prepared"},
    "skode._ranking": TYPES | {"skode._prepare", "skode._prepared"},
    "skode._predict": TYPES | PARTS | {"skode._fitted", "skode._memory", "skode._parallel", "skode._scales"},
    "skode._fit": TYPES
    | PREPARED
    | PARTS
    | {
        "skode._additive",
        "skode._calm",
        "skode._screen",
        "skode._strengths",
        "skode._constraints",
        "skode._dependencies",
        "skode._fitted",
        "skode._memory",
        "skode._parts",
        "skode._predict",
        "skode._ranking",
        "skode._reach",
        "skode._stage",
        "skode._start_velocity",
        "skode._train",
        "skode.prior",
    },
    "skode._folds": TYPES | {"skode._chains", "skode._trajectories"},
    "skode._strengths": TYPES | {"skode._validation"},
    "skode._supports": TYPES | PARTS | {"skode._parts", "skode._stage", "skode._train"},
    "skode._confidence": TYPES | PREPARED | PARTS | {"skode._fit", "skode._folds", "skode._supports"},
    "skode._fold_products": TYPES
    | PREPARED
    | PARTS
    | {"skode._fit", "skode._parts", "skode._train", "skode._trajectories"},
    "skode._finish": TYPES
    | PARTS
    | {"skode._fit", "skode._fold_products", "skode._parts", "skode._steady", "skode._train"},
    "skode._curves": TYPES
    | PREPARED
    | PARTS
    | {"skode._amounts", "skode._confidence", "skode._curve_fits", "skode._curve_search", "skode._fit"},
    "skode._curve_folds": TYPES
    | PREPARED
    | PARTS
    | {"skode._confidence", "skode._curve_fits", "skode._curves", "skode._fit", "skode._fold_products", "skode._parts"},
    "skode._curve_choice": TYPES
    | PREPARED
    | PARTS
    | {
        "skode._calm",
        "skode._curve_fits",
        "skode._curve_folds",
        "skode._curves",
        "skode._finish",
        "skode._fit",
        "skode._fitted",
        "skode._fold_products",
        "skode._predict",
        "skode._train",
    },
    "skode._best_starts": TYPES | {"skode._dynamics", "skode.objectives"},
    "skode._law_solutions": TYPES | {"skode.fields", "skode.objectives"},
    "skode._shooting": TYPES | {"skode._law_solutions", "skode.fields", "skode.objectives"},
    "skode._term_search": TYPES | {"skode.convex"},
    "skode._law_terms": TYPES | PARTS | {"skode._fit"},
    "skode._law_windows": TYPES | PARTS | {"skode._best_starts", "skode._fit", "skode._shooting"},
    "skode._laws": TYPES
    | PARTS
    | {
        "skode._best_starts",
        "skode._fit",
        "skode._law_terms",
        "skode._law_windows",
        "skode._shooting",
        "skode._term_search",
    },
    "skode._law_choice": TYPES
    | PARTS
    | {
        "skode._amounts",
        "skode._confidence",
        "skode._fit",
        "skode._fitted",
        "skode._law_windows",
        "skode._laws",
        "skode._predict",
        "skode._prepared",
        "skode._reach",
        "skode._scales",
        "skode._train",
    },
    "skode._overrule": TYPES | PARTS | {"skode._confidence", "skode._fit", "skode._parts"},
    "skode._choice": TYPES | {"skode._prepared", "skode.convex"},
    "skode._path": TYPES
    | PARTS
    | {"skode._compact", "skode._dependencies", "skode._fit", "skode._parts", "skode._prepared", "skode._train"},
    "skode._held_out": TYPES | PREPARED | PARTS | {"skode._fit", "skode._parts", "skode._path", "skode._supports"},
    "skode._selection": SHAPES
    | PARTS
    | {
        "skode._choice",
        "skode._compact",
        "skode._confidence",
        "skode._curve_choice",
        "skode._curve_folds",
        "skode._curves",
        "skode._finish",
        "skode._fit",
        "skode._fitted",
        "skode._folds",
        "skode._held_out",
        "skode._law_choice",
        "skode._overrule",
        "skode._path",
        "skode._train",
    },
    # beside the road: numpy (and pandas where a user brings it), never the fitting code
    "skode.datasets": TYPES,
    "skode.graph": TYPES,
    "skode.metrics": TYPES,
    # the top: scikit-learn's machinery
    "skode._parameters": TYPES
    | PARTS
    | {"skode._fit", "skode._layout", "skode._names", "skode._validation", "skode.prior"},
    "skode.scoring": TYPES | {"skode.metrics"},
    "skode._forecast_split": TYPES,
    "skode._regularization_path": FIT | TOOLS | {"skode._strengths", "skode.estimators"},
    "skode.stability": FIT | TOOLS | {"skode._base", "skode._folds"},
    "skode.model_selection": FIT
    | {
        "skode._base",
        "skode._compact",
        "skode._folds",
        "skode._forecast_split",
        "skode._regularization_path",
        "skode._selection",
        "skode._strengths",
        "skode.stability",
    },
    "skode.exceptions": set(),
    "skode._questions": FIT,
    "skode._driven": FIT,
    "skode._answering": FIT
    | TOOLS
    | {"skode._compact", "skode._driven", "skode._equations", "skode._questions", "skode.builders", "skode.exceptions"},
    "skode._base": FIT | {"skode._answering", "skode._identifiability", "skode._memory", "skode.exceptions"},
    "skode.estimators": FIT | {"skode._base"},
    "skode": {"skode"},
}

# Outside modules that only these may import. A model of scikit-learn is a tool like any other; what an
# estimator or a search is made of belongs to the top.
TOP = {
    "skode._answering",
    "skode._base",
    "skode._forecast_split",
    "skode._parameters",
    "skode._regularization_path",
    "skode.estimators",
    "skode.model_selection",
    "skode.scoring",
    "skode.stability",
}
ONLY_IN: dict[str, set[str]] = {
    "matplotlib": {"skode.displays"},
    "networkx": {"skode.graph", "skode._answering", "skode.prior", "skode.stability"},
    "sklearn.base": TOP,
    "sklearn.metrics": TOP,
    "sklearn.model_selection": TOP,
    "sklearn.pipeline": TOP,
    "sklearn.utils": TOP,
    "torchdiffeq": {"skode.integrate"},
}
ISLANDS = {"skode.builders", "skode.datasets", "skode.graph", "skode.metrics", "skode.scoring"}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}
TREES = {module: ast.parse(path.read_text(encoding="utf-8")) for module, path in FILES.items()}


def entry(module: str) -> str:
    """Return the longest name in the table that is the module or one of its parents."""
    parts = module.split(".")
    names = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return next((name for name in names if name in ALLOWED and (name != "skode" or module == "skode")), "")


def imports(module: str) -> set[str]:
    """Return the full names of what a module imports, wherever in the file the import stands."""
    found: set[str] = set()
    is_package = FILES[module].name == "__init__.py"
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            parents = module.split(".")[: len(module.split(".")) + is_package - node.level] if node.level else []
            origin = ".".join([*parents, *([node.module] if node.module else [])])
            # "from skode import metrics" imports a module, "from skode.metrics import mse" a name in one
            names = {f"{origin}.{name.name}" for name in node.names}
            found |= {name if name in FILES else origin for name in names}
    return found


def inside(module: str) -> set[str]:
    return {name for name in imports(module) if name.split(".")[0] == "skode"}


def test_the_table_points_downwards_only():
    table = {name: allowed for name, allowed in ALLOWED.items() if name != "skode"}
    assert list(TopologicalSorter(table).static_order())  # raises CycleError where it does not


def test_no_two_modules_import_each_other_in_a_circle():
    table = {module: inside(module) - {module} for module in FILES}
    assert len(list(TopologicalSorter(table).static_order())) >= len(FILES)


@pytest.mark.parametrize("module", FILES)
def test_imports_point_down(module):
    own = entry(module)
    assert own, f"{module} has no line in ALLOWED"
    if own == "skode":
        return
    wrong = {name for name in inside(module) if entry(name) not in ALLOWED[own] | {own}}
    assert not wrong, f"{module} may not import {sorted(wrong)}"


@pytest.mark.parametrize("module", FILES)
def test_outside_packages_stay_in_their_place(module):
    own, names = entry(module), imports(module)
    kept = {package for package, places in ONLY_IN.items() if own not in places}
    kept |= {"torch"} if own in ISLANDS else set()
    wrong = {name for name in names if any(f"{name}.".startswith(f"{package}.") for package in kept)}
    assert not wrong, f"{module} may not import {sorted(wrong)}"


@pytest.mark.parametrize("module", FILES)
def test_no_star_and_no_try_around_imports(module):
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ImportFrom):
            assert all(name.name != "*" for name in node.names), f"line {node.lineno}"
        if isinstance(node, ast.Try):
            guarded = any(isinstance(child, ast.Import | ast.ImportFrom) for child in ast.walk(node))
            assert not guarded, f"line {node.lineno}"
