"""Build the source distribution, unpack it, and run the tests of its documents from there.

    python tests/sdist.py PYTHON

PYTHON is the interpreter of an environment with the extra `dev`.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> None:
    python = Path(sys.argv[1]).absolute()  # not resolved: the link says which environment it is
    with tempfile.TemporaryDirectory() as work:
        subprocess.run(
            [python, "-m", "build", "--sdist", "--outdir", work, ROOT], check=True, stdout=subprocess.DEVNULL
        )
        (archive,) = Path(work).glob("*.tar.gz")
        with tarfile.open(archive) as file:
            file.extractall(work, filter="data")
        folder = Path(work) / archive.name.removesuffix(".tar.gz")
        subprocess.run(
            [
                python,
                "-m",
                "pytest",
                *("-n", "auto", "-m", ""),
                "tests/test_docs.py",
                "tests/test_recipes.py",
                "tests/test_examples.py",
            ],
            cwd=folder,
            check=True,
            env={"PATH": f"{python.parent}:/usr/bin:/bin", "PYTHONPATH": str(folder)},
        )


if __name__ == "__main__":
    main()
