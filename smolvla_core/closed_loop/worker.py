"""A stage in a process of its own, which loads neither torch nor lerobot, and ends with its parent."""

import contextlib
import os
import signal
import subprocess  # nosec B404 # this same Python, with fixed arguments
import sys
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from smolvla_core.closed_loop.environment import EnvSpec
from smolvla_core.closed_loop.stage import Act, Begin, Stage, Turn
from smolvla_core.errors import UserError


class StageProcess:
    """A :class:`Stage` in another process.

    Args:
        spec: of its environments.
    """

    def __init__(self, spec: EnvSpec):
        self._pipe, theirs = Pipe()
        # Python's own ways to start a process would import the parent's main module, and torch with it
        self._process = subprocess.Popen(  # nosec B603 # as above
            [sys.executable, "-m", __name__, str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        theirs.close()
        self._send(spec)

    def ask(self, orders: Sequence[Begin | Act]) -> None:
        """Have orders done; :meth:`answer` is to follow."""
        self._send(list(orders))

    def answer(self) -> list[Turn]:
        """What came of them.

        Raises:
            UserError: of the environment.
            RuntimeError: the process died, or the environment failed.
        """
        try:
            turns = self._pipe.recv()
        except (EOFError, ConnectionError):
            raise self._died() from None
        if isinstance(turns, BaseException):
            raise turns
        answered: list[Turn] = turns
        return answered

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _send(self, message: Any) -> None:
        try:
            self._pipe.send(message)
        except OSError:
            raise self._died() from None

    def _died(self) -> RuntimeError:
        return RuntimeError(f"an environment's process died (exit code {self._process.wait()}); see what it printed")


def _serve(pipe: Connection) -> None:
    stage = Stage(pipe.recv())
    with contextlib.closing(stage), contextlib.suppress(EOFError, ConnectionError):
        while True:
            orders = pipe.recv()
            try:
                answer: Any = [stage.do(order) for order in orders]
            except UserError as error:
                answer = UserError(str(error))
            except Exception as error:  # noqa: BLE001 - the parent says what it was
                answer = RuntimeError(f"the environment failed: {type(error).__name__}: {error}")
            pipe.send(answer)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; its end closes the pipe
    _serve(Connection(int(sys.argv[1])))
