"""How many heaps a process has, as glibc itself tells."""

import ctypes
import subprocess
import sys

import pytest

COUNT_HEAPS = """
import ctypes, threading
from tune import heap
if {kept}:
    heap.keep_small()
libc = ctypes.CDLL(None)
libc.fopen.restype = libc.malloc.restype = ctypes.c_void_p
together = threading.Barrier(4)
def allocate():
    together.wait()
    libc.malloc(1000)
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
file = ctypes.c_void_p(libc.fopen(b"{path}", b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


def heaps(path, kept: bool) -> int:
    subprocess.run([sys.executable, "-c", COUNT_HEAPS.format(kept=kept, path=path)], check=True)
    return path.read_text().count("<heap nr=")


def test_all_threads_share_one_heap_where_it_is_kept_small(tmp_path):
    if not hasattr(ctypes.CDLL(None), "mallopt"):
        pytest.skip("not glibc")
    assert heaps(tmp_path / "kept.xml", True) == 1
    assert heaps(tmp_path / "left.xml", False) > 1
