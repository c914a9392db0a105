"""Run the main commands in a new virtual environment, with the lowest or the newest versions of all dependencies.

python tests/smoke.py lowest|newest
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parents[1]
COMMANDS = (
    ("--help",),
    ("--version",),
    ("summary", "configs/toy.yaml"),
    ("train", "configs/toy.yaml", "--epochs", "1", "--quiet", "--out", "{work}/run"),
    ("evaluate", "{work}/run"),
    ("gradcheck", "configs/toy.yaml"),
    ("trace", "configs/toy.yaml"),
)


def main() -> None:
    choice = sys.argv[1]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = project["dependencies"]
    if choice == "lowest":
        requirements = [requirement.replace(">=", "==") for requirement in requirements]
    with tempfile.TemporaryDirectory() as work:
        venv.create(f"{work}/venv", with_pip=True)
        python = f"{work}/venv/bin/python"
        subprocess.run([python, "-m", "pip", "install", "--quiet", *requirements, str(ROOT)], check=True)
        for command in COMMANDS:
            arguments = [part.format(work=work) for part in command]
            done = subprocess.run([f"{work}/venv/bin/cnnbp", *arguments], cwd=ROOT, capture_output=True, text=True)
            if done.returncode or not done.stdout:
                sys.exit(f"{choice}: cnnbp {' '.join(arguments)}: exit code {done.returncode}\n{done.stderr}")
        versions = subprocess.run([python, "-m", "pip", "freeze"], capture_output=True, text=True, check=True).stdout
        names = [requirement.split(">=")[0] for requirement in project["dependencies"]]
        installed = [line for line in versions.splitlines() if line.lower().split("==")[0] in names]
        print(f"{choice}: {len(COMMANDS)} commands work on Python {sys.version.split()[0]} with", ", ".join(installed))


if __name__ == "__main__":
    main()
