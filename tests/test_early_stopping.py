"""Held-out losses by hand: which parameters are kept, and which models are done."""

from __future__ import annotations

import torch

from skode._early_stopping import Best


def test_every_model_keeps_its_own_best_and_nan_is_never_best() -> None:
    best = Best(torch.zeros(3, 2))
    for value, loss in ((1.0, [2.0, 1.0, torch.nan]), (2.0, [1.0, 3.0, torch.nan]), (3.0, [1.0, 2.0, torch.nan])):
        best.offer(torch.full((3, 2), value), torch.tensor(loss))
    assert best.vector[:, 0].tolist() == [2.0, 1.0, 0.0]
    assert best.end(torch.full((3, 2), 4.0), torch.tensor([5.0, 0.5, torch.nan]))[:, 0].tolist() == [2.0, 4.0, 0.0]


def test_a_model_is_done_after_so_many_offers_in_a_row_that_bring_nothing() -> None:
    best, never = Best(torch.zeros(2, 1), patience=2), Best(torch.zeros(2, 1))
    done = []
    for loss in ([1.0, 1.0], [2.0, 0.5], [2.0, 2.0], [0.1, 2.0]):
        for one in (best, never):
            one.offer(torch.zeros(2, 1), torch.tensor(loss))
        done.append(best.done.tolist())
    assert done == [[False, False], [False, False], [True, False], [False, True]]
    assert not bool(never.done.any())


def test_the_last_parameters_stay_unless_a_check_was_better_by_more_than_a_standard_error() -> None:
    parts = torch.tensor([[1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]])
    rise = torch.tensor([[3.0, -2.0, 2.0, -2.0], [1.0, 2.0, 1.0, 2.0]])  # .25 (1.31) and 1.5 (.29)
    best = Best(torch.zeros(2, 1))
    best.offer(torch.zeros(2, 1), parts)
    assert best.end(torch.ones(2, 1), parts + rise).flatten().tolist() == [1.0, 0.0]


def test_a_part_that_is_lost_does_not_hide_the_others_and_is_never_gained_by_the_last() -> None:
    lost = torch.inf
    best = Best(torch.zeros(3, 1))
    best.offer(torch.full((3, 1), 1.0), torch.tensor([[lost, 2.0, 2.0], [1.0, 1.0, 1.0], [lost, lost, lost]]))
    best.offer(torch.full((3, 1), 2.0), torch.tensor([[lost, 1.0, 1.0], [lost, 0.1, 0.1], [lost, lost, lost]]))
    assert best.vector.flatten().tolist() == [2.0, 1.0, 0.0]
    best.offer(torch.full((3, 1), 3.0), torch.tensor([[9.0, 9.0, 9.0], [lost, 0.1, 0.1], [lost, lost, lost]]))
    assert best.vector.flatten().tolist() == [3.0, 1.0, 0.0]
    last = torch.tensor([[lost, 0.1, 0.1], [lost, 0.9, 0.9], [lost, lost, lost]])
    assert best.end(torch.full((3, 1), 4.0), last).flatten().tolist() == [3.0, 1.0, 0.0]
    again = torch.tensor([[8.0, 9.5, 9.5], [1.1, 0.9, 1.0], [lost, lost, lost]])
    assert best.end(torch.full((3, 1), 5.0), again).flatten().tolist() == [5.0, 5.0, 0.0]
