"""Whether the garden's pictures can be drawn on this machine: ``python -m smolvla_core.garden.display``.

Exit code 0, or 2 and one line that names the packages.
"""

import sys

from smolvla_core.command import OK, answer
from smolvla_core.garden.cameras import Cameras
from smolvla_core.garden.scene import build_model


def main() -> int:
    """Draw with a small camera, and say nothing where that works."""

    def draw() -> int:
        Cameras(build_model(), {"head": 32}).close()
        return OK

    return answer(draw)


if __name__ == "__main__":
    sys.exit(main())
