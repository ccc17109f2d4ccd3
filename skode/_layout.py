"""What the columns of X mean."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """Say which columns of X hold time, initial state, initial velocity, start time and inputs.

    The columns stand in this order, and every part but the first may be absent::

        X = [ t | x0_1 ... x0_d | v0_1 ... v0_d | start time | u_1 ... u_m ]

    Parameters
    ----------
    n_states : int
        d, the number of state variables (positions when ``order=2``), which is the number of columns of y.
    n_inputs : int
        m, the number of inputs that are variables of the graph; the start time is not one of them.
    order : int, default=1
        Order of the differential equation, 1 or 2.
    velocity_given : bool, default=True
        Whether X holds initial velocities; read only when ``order=2``.
    start_time : bool, default=False
        Whether the first column after the states is the time at which the field's clock starts.
    time_only : bool, default=False
        Whether X is one column of times; the rows are then one trajectory whose start is estimated.

    Examples
    --------
    >>> layout = Layout.infer(6, 4)
    >>> layout.n_inputs, layout.initial, layout.inputs
    (1, slice(1, 5, None), slice(5, 6, None))
    """

    n_states: int
    n_inputs: int
    order: int = 1
    velocity_given: bool = True
    start_time: bool = False
    time_only: bool = False

    @classmethod
    def infer(
        cls,
        n_columns: int,
        n_states: int,
        *,
        order: int = 1,
        initial_velocity: str = "given",
        time_dependent: bool = False,
        time_origin: str = "zero",
    ) -> Layout:
        """Find the layout that the constructor's options and the two widths imply.

        The options decide the layout; the width of X decides only the number of inputs, which is what the
        other columns leave over. One column is always "time only", with velocities inferred when ``order=2``.

        Parameters
        ----------
        n_columns : int
            Number of columns of X.
        n_states : int
            d, the number of columns of y.
        order : int, default=1
            Order of the differential equation, 1 or 2.
        initial_velocity : {"given", "inferred"}, default="given"
            Whether X holds v0 when ``order=2``.
        time_dependent : bool, default=False
            Whether the field sees time.
        time_origin : {"zero", "input"}, default="zero"
            Whether the first u column is the start time of the field's clock; read only when
            ``time_dependent``.

        Returns
        -------
        Layout

        Raises
        ------
        ValueError
            If the width fits no layout.
        """
        start_time = time_dependent and time_origin == "input"
        if n_columns == 1 and not start_time:
            return cls(n_states, 0, order, velocity_given=False, time_only=True)
        velocity_given = order == 2 and initial_velocity == "given"
        least = 1 + n_states * (2 if velocity_given else 1) + start_time
        if n_columns < least:
            raise ValueError(_width_message(n_columns, n_states, least, velocity_given, start_time))
        return cls(n_states, n_columns - least, order, velocity_given, start_time)

    @property
    def has_velocity(self) -> bool:
        """Whether X has columns of initial velocities."""
        return self.order == 2 and self.velocity_given and not self.time_only

    @property
    def n_columns(self) -> int:
        """Number of columns of X."""
        return int(self.inputs.stop)

    @property
    def time(self) -> slice:
        """Column of t, the time elapsed since x0."""
        return slice(0, 1)

    @property
    def initial(self) -> slice:
        """Columns of x0, empty when X is time only."""
        return slice(1, 1 if self.time_only else 1 + self.n_states)

    @property
    def velocity(self) -> slice:
        """Columns of v0, empty unless velocities are given."""
        start = self.initial.stop
        return slice(start, start + self.n_states if self.has_velocity else start)

    @property
    def origin(self) -> slice:
        """Column of the start time of the field's clock, empty unless it is given."""
        start = self.velocity.stop
        return slice(start, start + 1 if self.start_time else start)

    @property
    def inputs(self) -> slice:
        """Columns of u, the inputs of the graph."""
        start = self.origin.stop
        return slice(start, start + self.n_inputs)


def _width_message(n_columns: int, n_states: int, least: int, velocity_given: bool, start_time: bool) -> str:
    formula = "1 + 2 d" if velocity_given else "1 + d"
    parts = f"t, d = {n_states} initial states"
    if velocity_given:
        parts += f", {n_states} initial velocities"
    if start_time:
        formula += " + 1"
        parts += ", the start time"
    alternative = "" if start_time else " or 1 column (time only)"
    hint = ' or set initial_velocity="inferred"' if velocity_given else ""
    flag = ""
    if velocity_given:
        flag = " with velocities="
    if start_time:
        flag += (" and" if flag else " with") + " absolute_time=True"
    return (
        f"X must have {formula} + m = {least} + m columns ({parts}, m >= 0 inputs){alternative}; "
        f"got {n_columns}. Build X with from_trajectories{flag}{hint}."
    )
