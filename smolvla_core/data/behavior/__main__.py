"""``python -m smolvla_core.data.behavior``."""

import sys

from smolvla_core.data.behavior import main

if __name__ == "__main__":
    sys.exit(main())
