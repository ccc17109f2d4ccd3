"""The layout is decided by the options; the width decides only the number of inputs."""

from __future__ import annotations

import numpy as np
import pytest

from skode._layout import Layout

OPTIONS = [
    {},
    {"order": 2},
    {"order": 2, "initial_velocity": "inferred"},
    {"time_dependent": True},
    {"time_dependent": True, "time_origin": "input"},
    {"order": 2, "time_dependent": True, "time_origin": "input"},
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("n_inputs", [0, 1, 3])
@pytest.mark.parametrize("n_states", [1, 4])
def test_slices_cut_all_columns_in_order_without_gaps(options, n_inputs, n_states):
    full = Layout.infer(40, n_states, **options)
    layout = Layout.infer(40 - full.n_inputs + n_inputs, n_states, **options)
    columns = np.arange(layout.n_columns)
    parts = [layout.time, layout.initial, layout.velocity, layout.origin, layout.inputs]
    np.testing.assert_array_equal(np.concatenate([columns[part] for part in parts]), columns)
    assert layout.n_inputs == n_inputs == len(columns[layout.inputs])
    assert len(columns[layout.initial]) == n_states
    assert len(columns[layout.velocity]) == (n_states if layout.has_velocity else 0)
    assert len(columns[layout.origin]) == int(layout.start_time)


@pytest.mark.parametrize(("options", "least"), list(zip(OPTIONS, [5, 9, 5, 5, 6, 10], strict=True)), ids=str)
def test_widths_below_the_least_raise_and_name_it(options, least):
    assert Layout.infer(least, 4, **options).n_inputs == 0
    with pytest.raises(ValueError, match=rf"= {least} \+ m columns .* got {least - 1}\. Build X with"):
        Layout.infer(least - 1, 4, **options)


def test_one_column_is_time_only():
    layout = Layout.infer(1, 3)
    assert layout.time_only
    assert layout.n_columns == 1
    assert layout.initial == slice(1, 1)


def test_one_column_infers_velocities():
    layout = Layout.infer(1, 3, order=2)
    assert layout.time_only and not layout.has_velocity


def test_a_start_time_needs_its_column():
    with pytest.raises(ValueError, match="start time"):
        Layout.infer(1, 3, time_dependent=True, time_origin="input")


def test_time_origin_is_read_only_by_time_dependent_fields():
    assert Layout.infer(6, 4, time_origin="input") == Layout(4, 1, velocity_given=False)
