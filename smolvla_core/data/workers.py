"""The same work on many items, in processes that never outlive the one that started them."""

import os
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import connection, get_context, parent_process
from typing import Any


def each[Item, Result](
    work: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int,
    notify: Callable[[int, int], None],
) -> list[Result]:
    """Results in the order of ``items``.

    Args:
        work: what to do with one; it is pickled where there are several workers.
        items: to work on.
        workers: processes; 1 works in this one.
        notify: called with (items done, of how many) at the start and after each.

    Raises:
        BrokenProcessPool: a process died.
        Exception: the first that ``work`` raised; what had not begun is left.
    """
    notify(0, len(items))
    if workers == 1 or len(items) < 2:
        results = []
        for item in items:
            results.append(work(item))
            notify(len(results), len(items))
        return results
    with ProcessPoolExecutor(
        min(workers, len(items)), mp_context=get_context("spawn"), initializer=_stay_with_parent
    ) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                notify(done, len(items))
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return [future.result() for future in futures]


def _stay_with_parent() -> None:
    """Leave Ctrl-C, which reaches every process of a terminal, to the parent; end when it was killed.

    A pool's processes would otherwise go on after a kill -9, beside the import that is run next.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_after_parent, daemon=True).start()


def _end_after_parent() -> Any:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
