"""Known vulnerabilities of the pinned dependencies: ``python -m tests.audit_dependencies``.

pip-audit asks an advisory service. Where none is reached it says of each package that it was not found, and
of all of them together that there are no known vulnerabilities; here that is told apart. Exit code 1 where a
vulnerability is known, 0 else.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

CONSTRAINTS = Path(__file__).parents[1] / "constraints.txt"


def main() -> int:
    """Run pip-audit on ``constraints.txt``, and say what came of it."""
    command = [sys.executable, "-m", "pip_audit", "-r", str(CONSTRAINTS), "--no-deps", "--disable-pip"]
    done = subprocess.run([*command, "-f", "json", "--progress-spinner", "off"], capture_output=True, text=True)
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        reason = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        print(f"NOT audited: the advisory service was not reached ({reason})")
        return 0
    lines, code = report(packages)
    print("\n".join(lines))
    return code


def report(packages: list[dict[str, Any]]) -> tuple[list[str], int]:
    """What is said of pip-audit's findings, and the exit code."""
    asked = [package for package in packages if "skip_reason" not in package]
    if not asked:
        return [f"NOT audited: the advisory service knows none of the {len(packages)} packages from here"], 0
    lines = [
        f"{package['name']} {package['version']}: {each['id']}, fixed in {' '.join(each['fix_versions']) or 'none'}"
        for package in asked
        for each in package["vulns"]
    ]
    unasked = len(packages) - len(asked)
    lines.append(f"{len(asked)} packages audited, {len(lines)} known vulnerabilities")
    if unasked:
        lines.append(f"{unasked} packages could not be audited")
    return lines, int(len(lines) > 1 + bool(unasked))


if __name__ == "__main__":
    sys.exit(main())
