"""``python -m smolvla_core.data.synthetic``."""

import sys

from smolvla_core.data.synthetic import main

if __name__ == "__main__":
    sys.exit(main())
