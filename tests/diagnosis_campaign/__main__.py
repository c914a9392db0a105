"""The figures of the diagnosis: `python tests/diagnosis_campaign`, with `--help` for what can be chosen."""

import os
import sys
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # two processes share the cores already
TESTS = Path(__file__).parents[1]
sys.path[:1] = [str(TESTS), str(TESTS.parent)]
os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])

from diagnosis_campaign.campaign import main  # noqa: E402
from diagnosis_campaign.pages import write  # noqa: E402

if __name__ == "__main__":
    sys.exit(write(sys.argv[2:]) if sys.argv[1:2] == ["--write-pages"] else main())
