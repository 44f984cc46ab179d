"""A report whose state goes to a remote storage, which may be away for some minutes."""

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

from ray import tune as ray_tune
from ray.train._internal.session import get_session

from smolvla_core.errors import disk_is_full

PAUSES_S = (5.0, 10.0, 20.0, *(40.0,) * 12)
"""Between tries: about ten minutes with the seconds that each try takes."""
_LOG = logging.getLogger(__name__)


def report_patiently(
    metrics: Mapping[str, Any],
    checkpoint: ray_tune.Checkpoint,
    report: Callable[..., None],
    is_remote: Callable[[], bool] | None = None,
) -> None:
    """Report to Ray Tune, and again where the remote storage does not take the state.

    A folder that cannot be written is no network that comes back: there the first failure is the last.

    Args:
        metrics: of the report.
        checkpoint: likewise, with the state in a folder here.
        report: Ray Tune's.
        is_remote: whether states go to a network; None: as Ray's session says.

    Raises:
        OSError: the state could not be saved, even after ten minutes.
    """
    for pause in PAUSES_S:
        try:
            report(dict(metrics), checkpoint=checkpoint)
            return
        except OSError as error:
            if not (is_remote or _saves_remotely)() or disk_is_full(error):
                raise
            _LOG.warning("the state could not be saved (%s); tried again in %.0f s", error, pause)
        time.sleep(pause)
    report(dict(metrics), checkpoint=checkpoint)


def _saves_remotely() -> bool:
    session = get_session()
    return session is not None and session.storage.storage_filesystem.type_name != "local"
