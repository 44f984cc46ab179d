"""``python -m smolvla_core.data.audit``."""

import sys

from smolvla_core.data.audit import main

if __name__ == "__main__":
    sys.exit(main())
