"""Has anything that is installed here a known hole? Freezes it to a lock and asks pip-audit about every line.

.venv/bin/python tests/audit.py

Exit status: 0 no known hole, 1 holes found, 2 not everything could be looked up. pip-audit itself ends with 0, and says
"No known vulnerabilities found", where it cannot look up a single package.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

PIP_AUDIT = "pip-audit==2.10.1"
PATIENCE = 300  # seconds for all packages


def main() -> int:
    with tempfile.TemporaryDirectory() as folder:
        lock = Path(folder) / "requirements.lock"
        freeze = subprocess.run([sys.executable, "-m", "pip", "freeze"], capture_output=True, text=True, check=True)
        lock.write_text(freeze.stdout, encoding="utf-8")
        # In an environment of its own: what it needs is not what is audited.
        venv.create(Path(folder) / "venv", with_pip=True)
        python = Path(folder) / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        installed = subprocess.run([python, "-m", "pip", "install", "-qq", PIP_AUDIT], check=False)
        report = ""
        if not installed.returncode:
            command = [python, "-m", "pip_audit", "--no-deps", "--disable-pip", "-f", "json", "-r", lock]
            with contextlib.suppress(subprocess.TimeoutExpired):
                done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
                report = done.stdout
    status, said = verdict(report, freeze.stdout.count("=="))
    print(said)
    return status


def verdict(report: str, packages: int) -> tuple[int, str]:
    """pip-audit's JSON about a lock of so many packages -> (exit status, sentences). An empty report is one, too."""
    found = json.loads(report)["dependencies"] if report.strip() else []
    looked_up = [package for package in found if "vulns" in package]
    holes = [
        f"{package['name']} {package['version']}: {hole['id']}, mended in {hole['fix_versions'] or 'no version yet'}"
        for package in looked_up
        for hole in package["vulns"]
    ]
    if holes:
        return 1, "\n".join(["Known holes in what is installed:", *holes])
    unknown = packages - len(looked_up)
    if unknown:
        return 2, f"{unknown} of {packages} packages could not be looked up; nothing is known of them."
    return 0, f"No known hole in any of the {packages} packages installed."


if __name__ == "__main__":
    sys.exit(main())
