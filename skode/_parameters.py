"""Constructor arguments, checked and turned into a specification before anything is computed."""

from __future__ import annotations

import logging
import math
import numbers
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state

from skode._fit import FEW_UNITS, Specification
from skode._names import VariableNames
from skode._validation import explained
from skode.fields import ACTIVATIONS, AbstractField
from skode.integrate import METHODS
from skode.penalties import resolve_penalty
from skode.prior import PriorKnowledge, check_prior, edge_rules
from skode.recipe import RECIPES

FIELDS = ("auto", "per_target", "additive", "shared", "residual")
APART = ("auto", "per_target", "additive")
"""Fields of one network per target."""
MONOTONE = ("tanh", "elu", "relu", "softplus")
"""Activations that never fall, so that signs of weights are signs of derivatives."""
HIDDEN = {"auto": (16,), "per_target": (16,), "additive": FEW_UNITS, "shared": (64, 64), "residual": (64, 64)}
"""Default widths: sixteen units bend one slope in a few variables; a shared network serves all targets."""
WEIGHT_DECAY = 1e-3
"""Where it is left to the package, until the evidence can be asked. Graphs hardly feel it: with a third of it
the mean F1 of 18 fits was .916 in place of .922."""


def specify(parameters: dict[str, Any]) -> Specification:
    """Check every constructor argument.

    Parameters
    ----------
    parameters : dict
        ``get_params(deep=False)`` of an estimator.

    Returns
    -------
    Specification

    Raises
    ------
    ValueError, TypeError
        For a value that is not allowed; the message names what is.
    """
    p = parameters
    _one_of(p, "field", FIELDS)
    _one_of(p, "activation", tuple(ACTIVATIONS))
    _one_of(p, "order", (1, 2))
    _one_of(p, "time_origin", ("zero", "input"))
    _one_of(p, "initial_state", ("refine", "observed"))
    _one_of(p, "initial_velocity", ("given", "inferred"))
    _one_of(p, "method", METHODS)
    _one_of(p, "training", tuple(RECIPES))
    _one_of(p, "dtype", ("float32", "float64"))
    _flag(p, "time_dependent")
    _flag(p, "refit")
    _number(p, "alpha", least=0.0)
    _number(p, "learning_rate", least=0.0, strict=True)
    _number(p, "tol", least=0.0)
    by_evidence = isinstance(p["weight_decay"], str) and p["weight_decay"] == "auto"
    if not by_evidence:
        _number(p, "weight_decay", least=0.0)
    automatic = isinstance(p["n_bilinear"], str) and p["n_bilinear"] == "auto"
    if not automatic:
        _integer(p, "n_bilinear", least=0)
    _integer(p, "max_iter", least=1)
    _integer(p, "verbose", least=0)
    if p["n_bilinear"] and not automatic and p["field"] not in APART:
        raise ValueError(
            f"n_bilinear must be 0 unless every target has a network of its own; got n_bilinear={p['n_bilinear']} with "
            f"field={p['field']!r}. Use field='per_target', or leave n_bilinear at 0."
        )
    if p["time_origin"] == "input" and not p["time_dependent"]:
        raise ValueError(
            "time_origin='input' must go with time_dependent=True; got time_dependent=False. "
            "Set time_dependent=True, or leave time_origin at 'zero'."
        )
    with explained("random_state must be an integer >= 0, a RandomState or None", "Use random_state=0, for example."):
        check_random_state(p["random_state"])
    check_prior(p["prior"])
    penalty = resolve_penalty(p["penalty"], p["gates"])
    if p["field"] == "additive":
        _check_additive(p, penalty.name)
    return Specification(
        penalty=penalty,
        field=p["field"],
        hidden=_hidden(p["hidden_layer_sizes"], p["field"]),
        activation=p["activation"],
        n_bilinear=0 if automatic else int(p["n_bilinear"]),
        widen=automatic,
        laws=automatic and p["field"] == "auto",
        order=int(p["order"]),
        time_dependent=bool(p["time_dependent"]),
        velocity_inferred=p["order"] == 2 and p["initial_velocity"] == "inferred",
        initial_exact=p["initial_state"] == "observed",
        method=p["method"],
        training=p["training"],
        max_iter=int(p["max_iter"]),
        learning_rate=float(p["learning_rate"]),
        tol=float(p["tol"]),
        weight_decay=WEIGHT_DECAY if by_evidence else float(p["weight_decay"]),
        by_evidence=by_evidence,
        refit=bool(p["refit"]),
        rules=None,
        device=resolve_device(p["device"]),
        dtype=torch.float32 if p["dtype"] == "float32" else torch.float64,
        report=reporter(p["verbose"]),
    )


def _check_additive(p: dict[str, Any], penalty: str) -> None:
    """Refuse what the convex selection cannot do."""
    wanted = {
        "penalty": (penalty, "group_lasso"),
        "order": (p["order"], 1),
        "time_dependent": (p["time_dependent"], False),
        "training": (p["training"], "staged"),
        "refit": (p["refit"], True),
    }
    for name, (given, must) in wanted.items():
        if given != must:
            raise ValueError(
                f"field='additive' must go with {name}={must!r}, whose selection is a convex problem; got "
                f"{name}={given!r}. Leave {name} at {must!r}, or use field='per_target'."
            )


def with_prior(
    specification: Specification, prior: PriorKnowledge | None, field: AbstractField, names: VariableNames
) -> Specification:
    """Read prior knowledge in the terms of the data, and see that the field and the penalty can honour it.

    Parameters
    ----------
    specification : Specification
    prior : PriorKnowledge or None
    field : AbstractField
        The field of the specification.
    names : VariableNames

    Returns
    -------
    Specification

    Raises
    ------
    ValueError, TypeError
        For prior knowledge that is wrong, contradicts itself, or cannot be honoured.
    """
    if prior is None:
        return specification
    spec = specification
    time_node = ("t",) if spec.time_dependent else ()
    rules = edge_rules(prior, names.states, (*names.states, *names.inputs, *time_node))
    if not field.per_target:
        raise ValueError(
            f"prior must go with field='per_target', where edges are apart from each other; got field={spec.field!r}. "
            "Use field='per_target', or leave prior out."
        )
    if spec.field == "additive" and (rules.signs.any() or prior.weights is not None):
        raise ValueError(
            "prior must hold neither signs nor weights for field='additive'; got some. Use field='per_target', or "
            "say what is allowed, forbidden and required."
        )
    if rules.signs.any() and len(spec.hidden) != 1:
        raise ValueError(
            f"prior.signs must go with one hidden layer; got hidden_layer_sizes={spec.hidden}. "
            "Use hidden_layer_sizes=16, or leave the signs out."
        )
    if rules.signs.any() and spec.activation not in MONOTONE:
        raise ValueError(
            f"prior.signs must go with a monotone activation, one of {', '.join(map(repr, MONOTONE))}; got "
            f"activation={spec.activation!r}. Use 'tanh', or leave the signs out."
        )
    if prior.weights is not None and spec.penalty.name == "none":
        raise ValueError(
            "prior.weights must go with a penalty, whose prices they multiply; got penalty=None. "
            "Use penalty='group_lasso', or leave the weights out."
        )
    if (rules.prices == 0).any() and not spec.penalty.holds_edges(field):
        raise ValueError(
            "Required and free edges of a prior must have gates of their own; got gates on single weights. "
            "Use gates='edge', or penalty='group_lasso'."
        )
    return replace(spec, rules=rules)


def resolve_device(device: Any) -> torch.device:
    """Find the device: "auto" is CUDA where there is one.

    Raises
    ------
    ValueError
        If the device is unknown, or CUDA is asked for and absent.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            f"device must be 'auto', 'cpu', 'cuda' or 'cuda:<number>'; got {device!r}. Use 'auto'."
        ) from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(
            f"device={device!r} must be available; got a machine on which torch sees no CUDA device. "
            "Use device='auto' or 'cpu', or install a CUDA build of torch."
        )
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device={device!r} must be available; got a machine with {torch.cuda.device_count()} CUDA devices, "
            "counted from 0. Use device='cuda'."
        )
    if found.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be of type 'cpu' or 'cuda'; got {device!r}. Use 'auto'.")
    return found


def available_device(device: Any) -> torch.device:
    """The device that was asked for in fit, or "auto" where a model was carried to a machine without it."""
    try:
        return resolve_device(device)
    except ValueError:
        return resolve_device("auto")


def reporter(verbose: int) -> Any:
    """Give the function that takes progress lines: the package's logger if verbose, else nothing."""
    if not verbose:
        return _silent
    logger = logging.getLogger("skode")
    if not logger.hasHandlers():
        logger.addHandler(logging.StreamHandler())
    logger.setLevel(logging.INFO)
    return logger.info


def _silent(line: str) -> None:
    """Take a progress line and do nothing."""


def _hidden(sizes: Any, field: str) -> tuple[int, ...]:
    if sizes is None:
        return HIDDEN[field]
    listed = isinstance(sizes, (tuple, list)) or (isinstance(sizes, np.ndarray) and sizes.ndim == 1)
    widths = tuple(sizes) if listed else (sizes,)
    if not widths or not all(_is_integer(w) and int(w) > 0 for w in widths):
        raise ValueError(
            f"hidden_layer_sizes must be None, a positive integer or a non-empty sequence of them; got {sizes!r}. "
            "Use (16,) for one layer of 16 units."
        )
    return tuple(int(w) for w in widths)


def _is_integer(value: Any) -> bool:
    """Tell integers, numpy's among them, from everything else; True and False are none."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _one_of(p: dict[str, Any], name: str, allowed: tuple[Any, ...]) -> None:
    value = p[name]
    known = isinstance(value, str) or _is_integer(value)  # numpy's too, which a grid of parameters may hold
    if not known or not any(isinstance(value, str) == isinstance(a, str) and value == a for a in allowed):
        listed = ", ".join(repr(a) for a in allowed)
        raise ValueError(f"{name} must be one of {listed}; got {value!r}. Use {name}={allowed[0]!r} if in doubt.")


def _flag(p: dict[str, Any], name: str) -> None:
    if not isinstance(p[name], (bool, np.bool_)):
        raise TypeError(f"{name} must be True or False; got {p[name]!r}. Pass a bool.")


def _number(p: dict[str, Any], name: str, *, least: float, strict: bool = False) -> None:
    value = p[name]
    bound = f"> {least:g}" if strict else f">= {least:g}"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a finite number {bound}; got {value!r}. Pass a float.")
    if not math.isfinite(value) or value < least or (strict and value == least):
        raise ValueError(f"{name} must be a finite number {bound}; got {value!r}. Choose a value in that range.")


def _integer(p: dict[str, Any], name: str, *, least: int) -> None:
    value = p[name]
    if not (_is_integer(value) or (name == "verbose" and isinstance(value, bool))):
        raise TypeError(f"{name} must be an integer >= {least}; got {value!r}. Pass an int.")
    if value < least:
        raise ValueError(f"{name} must be an integer >= {least}; got {value!r}. Choose a value in that range.")
