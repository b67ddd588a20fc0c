"""How much time is left, and which run fits into it?"""

from __future__ import annotations

import math
import time

from ninlab import records
from ninlab.errors import NinlabError
from ninlab.experiments import Plan, PlannedRun
from ninlab.recording.site import Site
from ninlab.records import RunRecord

PATIENCE = 4.0
"""A run on a GPU has hung when it takes so many times its estimate, and a minute at least."""
_LEAST_PATIENCE_SECONDS = 60.0
_GUESSED = 2.5
"""How much more patience a run has before any run of the device has corrected the estimates."""


class Clock:
    """How much time is left, and whether a run fits into it.

    deadline is a time of day in seconds since 1970. Estimates are corrected by all runs that this
    device has made, before and since. Raises NinlabError for a deadline that is no number.
    """

    def __init__(self, plan: Plan, site: Site, deadline: float | None) -> None:
        if deadline is not None and math.isnan(deadline):
            raise NinlabError("a deadline of nan never comes; give seconds since 1970")
        self._start = time.time()
        self._deadline = math.inf if deadline is None else deadline
        self._estimates = plan.estimates(records.load(site.folder), site.about)

    @property
    def elapsed(self) -> float:
        """Seconds since the recording began."""
        return time.time() - self._start

    @property
    def left(self) -> float:
        """Seconds to the deadline; infinite without one."""
        return self._deadline - time.time()

    def expected(self, run: PlannedRun) -> float:
        """Seconds that the run should take."""
        return self._estimates.seconds(run.row.network, run.row.recipe)

    def hangs_after(self, run: PlannedRun, patience: float | None) -> float | None:
        """Seconds after which the run has hung, for somebody of that patience.

        A guess by the device's own data sheet is given more of it. None where no run of the device
        and no data sheet tells how long a run may take.
        """
        kernels = run.row.recipe.kernels
        if patience is None or not self._estimates.is_of_the_device(kernels):
            return None
        if not self._estimates.is_corrected(kernels):
            return max(_GUESSED * patience * self.expected(run), 3 * _LEAST_PATIENCE_SECONDS)
        return max(patience * self.expected(run), _LEAST_PATIENCE_SECONDS)

    def fits(self, run: PlannedRun) -> bool:
        """Whether the run should end before the deadline."""
        return self.expected(run) <= self.left

    def learn(self, made: RunRecord) -> None:
        """Correct what is expected by a run that was just made."""
        self._estimates.add(made)
