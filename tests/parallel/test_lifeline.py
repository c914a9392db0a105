"""Processes that are connected notice when one of them is gone, however it went."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest
from parallel.launching import plain_environment

from cnnbp_cli.parallel import lifeline
from cnnbp_cli.parallel.lifeline import Address, Lifeline
from cnnbp_cli.parallel.processes import POLL_SECONDS

if not hasattr(os, "fork"):
    pytest.skip("needs a system that forks", allow_module_level=True)

OTHER = """
import sys, time
from cnnbp_cli.parallel import lifeline
lifeline.SILENCE_SECONDS = 2
def lost(*what):
    print(what, flush=True)
    sys.stdout.close()
end = lifeline.Lifeline(lost)
assert end.connect(lifeline.Address(("127.0.0.1",) * 2, int(sys.argv[1]), bytes.fromhex(sys.argv[2])), 3)
for line in sys.stdin:
    if line.startswith("fail"):
        end.fail(7)
    else:
        end.close()
    time.sleep(60)
"""


@pytest.fixture
def connected(monkeypatch):
    """Return what the first process was told to have lost, its end, and the other process."""
    monkeypatch.setattr(lifeline, "SILENCE_SECONDS", 2.0)
    lost = []
    first = Lifeline(lambda *what: (lost.append(what), first.close()))
    address = first.listen()
    command = [sys.executable, "-c", OTHER, str(address.port), address.token.hex()]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, env=plain_environment(), stdin=pipe, stdout=pipe, text=True) as other:
        first.accept(1)
        yield lost, first, other
        end(first)
        other.kill()


def end(*lines):
    for line in lines:
        line.close()
        line._thread.join()


def wait_for(lost, seconds=10.0):
    end = time.monotonic() + seconds
    while not lost and time.monotonic() < end:
        time.sleep(POLL_SECONDS / 10)
    return lost


def test_a_process_that_is_killed(connected):
    lost, _, other = connected
    other.kill()
    assert wait_for(lost) == [(3, "has died", None)]


def test_a_machine_that_falls_silent(connected):
    lost, _, other = connected
    os.kill(other.pid, signal.SIGSTOP)
    assert wait_for(lost) == [(3, "has not been heard of for 2 s", None)]


@pytest.mark.parametrize(("word", "expected"), [("fail", [(3, "failed", 7)]), ("bye", [])])
def test_a_process_that_ends_by_itself(connected, word, expected):
    lost, _, other = connected
    other.stdin.write(f"{word}\n")
    other.stdin.close()
    assert wait_for(lost, 10 if expected else 1.5) == expected


def test_a_beat_is_no_answer_to_a_beat(connected, monkeypatch):
    """Or the threads of all processes would be busy with nothing else."""
    _, first, _ = connected
    told = []
    monkeypatch.setattr(first, "tell", told.append)
    time.sleep(2.2)
    assert 1 <= len(told) <= 4
    monkeypatch.undo()


def test_the_others_miss_the_first_one(connected):
    _, first, other = connected
    first._closed.set()  # without a goodbye
    assert other.stdout.readline() == "(0, 'has died', None)\n"


def test_strangers_are_not_listened_to(monkeypatch):
    first = Lifeline(lambda *what: None)
    address = first.listen()
    stranger = Lifeline(lambda *what: None)
    assert stranger.connect(Address(("127.0.0.1",) * 2, address.port, b"x" * 16), 1)
    monkeypatch.setattr(lifeline, "CONNECT_SECONDS", 0.2)
    first.accept(1)
    assert first._sockets == {}
    end(first, stranger)


WORDS = """
import os, signal, sys
from cnnbp_cli.parallel.lifeline import last_words
say = last_words()
say("first words")
say(sys.argv[1])
os.killpg(0, signal.SIGKILL)
"""


@pytest.mark.parametrize("words", ["the last checkpoint is intact", ""])
def test_last_words_outlive_their_process(words):
    command = [sys.executable, "-c", WORDS, words]
    done = subprocess.run(
        command,
        env=plain_environment(),
        capture_output=True,
        text=True,
        start_new_session=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert done.stderr == (f"{words}\n" if words else "")


SPEECHLESS = """
import os, signal, sys, threading, time
from cnnbp_cli.parallel.lifeline import last_words
say = last_words()
child = int(open(f"/proc/self/task/{os.getpid()}/children").read().split()[0])
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
say("nobody hears this")
print("and goes on")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs the list of children in /proc")
def test_without_the_child_there_are_no_last_words_and_all_else_goes_on():
    """Somebody may kill it alone: the process that has to end the others must not stumble over that."""
    command = [sys.executable, "-c", SPEECHLESS]
    done = subprocess.run(command, env=plain_environment(), capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "and goes on\n", "")
