"""What all tests share: this folder as a place to import `laws` and `oracles` from, and draws that repeat."""

import signal
import sys
from pathlib import Path

from hypothesis import settings

sys.path.append(str(Path(__file__).parent))

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")

# A background job ignores Ctrl-C, and one that outlives its terminal ignores the hang-up; so would the programs
# that tests start in order to interrupt them.
for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)
