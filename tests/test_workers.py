"""Work in several processes: the same results in the same order, and none outlives its parent."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from smolvla_core.data.workers import each
from tests.processes import lives


def square(number):
    if number == 13:
        raise ValueError("unlucky")
    return number * number, os.getpid()


@pytest.mark.parametrize("workers", [1, 2])
def test_results_are_in_order_and_errors_come_through(workers):
    seen = []
    results = each(square, range(6), workers, lambda done, total: seen.append((done, total)))
    assert [value for value, _ in results] == [0, 1, 4, 9, 16, 25]
    assert ({pid for _, pid in results} == {os.getpid()}) == (workers == 1)
    assert seen == [(done, 6) for done in range(7)]
    with pytest.raises(ValueError, match="unlucky"):
        each(square, range(10, 16), workers, lambda done, total: None)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="looks for processes in /proc")
def test_workers_end_when_their_parent_is_killed(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from smolvla_core.data.workers import each\n"
        "def work(number):\n"
        "    Path(sys.argv[1], str(os.getpid())).touch()\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        "    each(work, range(2), 2, lambda done, total: None)\n"
    )
    pids = tmp_path / "pids"
    pids.mkdir()
    parent = subprocess.Popen([sys.executable, program, pids])
    try:
        deadline = time.monotonic() + 60
        while len(list(pids.iterdir())) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        workers = [int(path.name) for path in pids.iterdir()]
        assert len(workers) == 2
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        deadline = time.monotonic() + 10
        while any(map(lives, workers)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not any(map(lives, workers))
    finally:
        parent.kill()
