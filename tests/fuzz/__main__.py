"""Hostile input at full length: `python tests/fuzz`."""

import os
import sys
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # the networks are tiny
TESTS = Path(__file__).parents[1]
sys.path[:1] = [str(TESTS), str(TESTS.parent)]
os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])

from fuzz.runner import main  # noqa: E402

if __name__ == "__main__":
    sys.exit(main())
