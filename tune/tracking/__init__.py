"""What a study tells about itself while it runs: the ``Tracker`` interface, and MLflow behind it."""

from tune.tracking.tracker import NullTracker, Outcome, Tracker, make_tracker, reconcile, viewing_command, viewing_page

__all__ = ["NullTracker", "Outcome", "Tracker", "make_tracker", "reconcile", "viewing_command", "viewing_page"]
