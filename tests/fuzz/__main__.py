"""Hostile input at full length: `python tests/fuzz`, or with atheris `python tests/fuzz --atheris KIND [OPTIONS]`."""

import os
import sys
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # the networks are tiny
TESTS = Path(__file__).parents[1]
sys.path[:1] = [str(TESTS), str(TESTS.parent)]
os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:2])

if __name__ == "__main__":
    if sys.argv[1:2] == ["--atheris"]:
        import atheris

        with atheris.instrument_imports(include=["cnnbp_cli"]):
            from fuzz.runner import guided
        guided(*sys.argv[2:])
    else:
        from fuzz.runner import main

        sys.exit(main())
