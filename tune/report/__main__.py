"""Write a study's report anew: ``python -m tune.report RUN``.

Exit code 0 on success, 2 where the folder holds no study (one line says so).
"""

import sys

from smolvla_core.command import OK, Parser, answer
from tune import driver
from tune.report.results import TRIALS_FILE, refresh_results
from tune.report.study_files import SUMMARY_FILE
from tune.run_folder import opened


def main(arguments: list[str] | None = None) -> int:
    """The command line; see ``--help``."""
    parser = Parser(
        prog="python -m tune.report",
        description=f"Write a study's report.html, {SUMMARY_FILE} and {TRIALS_FILE} into its folder, from its records.",
        epilog="Exit code: 0 success, 2 bad input. A search may be running; its best policy is left as it is.",
    )
    parser.add_argument("run", metavar="RUN", help="a study's folder, e.g. runs/demo-20260131-120000, or address")
    options = parser.parse_args(arguments)

    def write() -> int:
        folder = opened(options.run, "RUN")
        driver.release(folder)  # what is fetched is held, and would pass for a study that is running
        print(refresh_results(folder).report)
        return OK

    return answer(write)


if __name__ == "__main__":
    sys.exit(main())
