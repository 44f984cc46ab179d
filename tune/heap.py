"""The driver's heap, kept from growing with the deaths that it sees."""

import ctypes

_M_TRIM_THRESHOLD, _M_ARENA_MAX = -1, -8
"""Of glibc's ``malloc.h``."""
_TRIM_BYTES = 128 * 1024


def keep_small() -> None:
    """Let all threads of this process share one heap that gives back what it no longer needs.

    Ray has some thirty threads in a driver. By itself glibc gives them up to eight heaps a core, in each of which
    little pieces that live long keep large ones from being returned: 7 MB a minute where trials die every few
    seconds (docs/faults.md). To be called before the threads are there. Where the C library is another, nothing
    happens.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # macOS has none
        return
    mallopt(_M_ARENA_MAX, 1)
    mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
