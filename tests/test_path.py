"""What the penalty leaves at every strength, and what is taken from it."""

from __future__ import annotations

import numpy as np
import torch

from skode._path import Path
from skode._train import Trained
from skode.fields import PerTargetField, SharedField


def path_of(field, n_levels=3):
    """A path whose masks are numbers that tell level, target and entry apart."""
    like = field.init(
        torch.Generator().manual_seed(0), n_models=n_levels, dtype=torch.float64, device=torch.device("cpu")
    )
    masks = {name: torch.arange(value.numel(), dtype=torch.float64).view(value.shape) for name, value in like.items()}
    trained = Trained(field, like, like, torch.zeros(n_levels, 2, 2), {}, torch.ones(n_levels))
    return Path(np.geomspace(1.0, 0.01, n_levels), trained, masks, np.zeros((n_levels, 2), dtype=np.int64))


def test_every_target_has_the_support_of_its_own_level():
    path = path_of(PerTargetField(2, 2, (3,), "tanh", (0, 1)))
    support = path.support(np.array([2, 1]))
    for name, mask in path.masks.items():
        assert support[name].shape == (1, *mask.shape[1:])
        assert torch.equal(support[name][0, 0], mask[2, 0]) and torch.equal(support[name][0, 1], mask[1, 1])


def test_targets_that_share_weights_have_one_support():
    path = path_of(SharedField(2, 2, (3,), "tanh", (0, 1), linear_skip=False))
    for name, value in path.support(np.array([1, 1])).items():
        assert torch.equal(value, path.masks[name][1:2])


def test_weights_that_the_press_closed_start_as_they_were_drawn():
    field = PerTargetField(2, 2, (3,), "tanh", (0, 1), n_bilinear=2)
    drawn = field.init(torch.Generator().manual_seed(1), n_models=1, dtype=torch.float64, device=torch.device("cpu"))
    pressed = {
        name: torch.stack([2.0 + value[0], 0.0 * value[0]]) * (name in field.entries) + (name not in field.entries)
        for name, value in drawn.items()
    }
    trained = Trained(field, pressed, pressed, torch.zeros(2, 2, 2), {}, torch.ones(2))
    path = Path(np.array([0.1, 0.01]), trained, {}, np.zeros((2, 2)))
    kept, opened = path.start(0, drawn), path.start(1, drawn)
    for name in drawn:
        assert torch.equal(kept[name], pressed[name][:1])
        assert torch.equal(opened[name], drawn[name] if name in field.entries else pressed[name][1:])
    # A product of two zeros would have no gradient.
    assert opened["P"].abs().min() > 0 or opened["R"].abs().min() > 0
