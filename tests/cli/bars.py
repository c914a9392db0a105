"""The small config of these tests, and what a call of the command line leaves."""

from __future__ import annotations

from collections.abc import Callable

BARS = """\
name: bars
data: {source: synthetic, kind: bars, train: 60, test: 20, validation: 0.2}
model:
  input: [1, 6, 6]
  layers:
    - {type: conv2d, name: edges, filters: 2, kernel_size: 3}
    - relu
    - {type: max_pool2d, pool_size: 2}
    - flatten
    - {type: dense, units: 2}
train: {epochs: 2, batch_size: 12, workers: 1, optimizer: {type: adam, learning_rate: 0.02}}
"""


class Outcome:
    """What a command left: its exit code and its two streams."""

    def __init__(self, code: int, stdout: str, stderr: str) -> None:
        self.code, self.stdout, self.stderr = code, stdout, stderr

    @property
    def remarks(self) -> str:
        """Standard error without the line that names the checkpoint."""
        lines = self.stderr.splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith("checkpoint: "))

    @property
    def lines(self) -> list[str]:
        return self.stdout.splitlines()


Command = Callable[..., Outcome]
