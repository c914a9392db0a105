"""What a worker of a run is, alone or one of several, of one machine or of many."""

from __future__ import annotations

from cnnbp_cli.parallel.local import LocalWorker
from cnnbp_cli.parallel.mpi import MpiWorker
from cnnbp_cli.parallel.solo import SoloWorker

Worker = SoloWorker | LocalWorker | MpiWorker
