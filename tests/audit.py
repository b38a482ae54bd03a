"""Are there known holes in what is installed? `make lint` asks pip-audit, where it is installed and the network allows.

    python -m tests.audit                    what is installed here
    python -m tests.audit --path PACKAGES    what is installed in that folder of packages

Exit code 1: a hole is known. 0: none is, or nobody could be asked; then a line says so.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import Any

OURS = "fedcervix"
WAIT_S = 180


def verdict(found: str, complaint: str) -> tuple[int, str]:
    """Return (exit code, what to print) of pip-audit's JSON and of what it wrote to stderr."""
    try:
        packages: list[dict[str, Any]] = [one for one in json.loads(found)["dependencies"] if one["name"] != OURS]
    except (ValueError, KeyError, TypeError):
        last = (complaint.strip().splitlines() or ["it said nothing"])[-1]
        return 0, f"pip-audit: skipped, for the list of known holes cannot be reached ({last[:200]})"
    asked = [one for one in packages if "skip_reason" not in one]
    holes = [(one, hole) for one in asked for hole in one["vulns"]]
    lines = [
        f"{one['name']} {one['version']}: {hole['id']}, fixed in {', '.join(hole['fix_versions']) or 'no version yet'}"
        for one, hole in holes
    ]
    if not asked:
        lines.append("pip-audit: skipped, for the package index here knows of no holes")
    else:
        lines.append(f"pip-audit: {len(holes)} known holes in {len(asked)} of {len(packages)} packages asked about")
    return int(bool(holes)), "\n".join(lines)


def ask(*where: str) -> tuple[int, str]:
    """Return (exit code, what to print). `where` are pip-audit's options that say what is looked at."""
    if importlib.util.find_spec("pip_audit") is None:
        return 0, "pip-audit: skipped, for it is not installed: pip install pip-audit"
    command = [sys.executable, "-m", "pip_audit", *(where or ("--local", "--skip-editable"))]
    command += ["--format", "json", "--timeout", "5"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False)
    except subprocess.TimeoutExpired:
        return 0, f"pip-audit: skipped, for nobody answered within {WAIT_S} s"
    return verdict(done.stdout, done.stderr)


if __name__ == "__main__":
    code, words = ask(*sys.argv[1:])
    sys.stdout.write(f"{words}\n")
    sys.exit(code)
