"""Trainings are asked to save their state: when their driver is told to end, and now and then.

A spot machine is told half a minute before it is taken away, and a scheduler says the same with a
SIGTERM. States are otherwise saved at the rungs, which can be hours apart. The driver leaves a mark in
Ray's own key-value store, which every training of the study looks for; each answers with a report that
holds its state and no value of the objective.
"""

import time
from contextvars import ContextVar
from uuid import uuid4

from ray.exceptions import RayError
from ray.experimental.internal_kv import _internal_kv_exists, _internal_kv_put

GRACE_S = 25.0
"""How long trainings have to answer."""
LOOK_EVERY_S = 1.0
SAVE_EVERY_S = 900.0
"""The most training that is lost with a machine that is taken away without a notice."""

_listens_to: ContextVar[str | None] = ContextVar("_listens_to", default=None)


class Notice:
    """The driver's side: gives the notice, and knows which trainings have not answered yet."""

    def __init__(self) -> None:
        self.key = f"smolvla-tune/notice/{uuid4().hex}"
        self._running: set[int] = set()
        self._unanswered: set[int] | None = None

    def started(self, number: int) -> None:
        """A training runs."""
        self._running.add(number)

    def ended(self, number: int) -> None:
        """A training runs no more."""
        self._running.discard(number)
        self.saved(number)

    def saved(self, number: int) -> None:
        """A training has reported its state."""
        if self._unanswered is not None:
            self._unanswered.discard(number)

    def give(self) -> None:
        """Ask those that run for their states."""
        self._unanswered = set(self._running)
        _internal_kv_put(self.key, b"1")

    @property
    def given(self) -> bool:
        """Whether they have been asked."""
        return self._unanswered is not None

    @property
    def answered(self) -> bool:
        """Whether all that ran have saved their states since."""
        return self._unanswered == set()


class Listener:
    """A training's side: whether its state is to be saved now.

    One that belongs to no study of this package, but to somebody's own ``Tuner``, is never asked:
    Ray refuses a report without the objective there.
    """

    def __init__(self) -> None:
        self._key = _listens_to.get()
        self._saved_at = self._looked_at = time.monotonic()
        self._heard = False
        self.due = False

    def __call__(self) -> bool:
        """Whether a state is due; looks for a notice now and then."""
        now = time.monotonic()
        if self._key is not None and not self._heard and now >= self._looked_at + LOOK_EVERY_S:
            self._looked_at = now
            self._heard = _is_given(self._key)
            self.due = self._heard or now >= self._saved_at + SAVE_EVERY_S
        return self.due

    def saved(self) -> None:
        """The state was saved."""
        self._saved_at, self.due = time.monotonic(), False


def listen_to(key: str) -> None:
    """Make the trainings of this thread listen to a driver's notice."""
    _listens_to.set(key)


def _is_given(key: str) -> bool:
    try:
        return bool(_internal_kv_exists(key))
    except RayError:  # the head is away, and with it whoever would ask
        return False
