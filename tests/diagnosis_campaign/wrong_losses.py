"""What a config cannot say: losses with the wrong sign, and a layer that passes no gradient on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cnnbp_cli.core.types import Array, Loss


@dataclass(frozen=True, slots=True)
class Flipped(Loss[Any]):
    """A right loss with its gradient's sign flipped, or with its own sign flipped and the gradient's to match."""

    right: Loss[Any]
    gradient_only: bool = True

    def predict(self, z: Array) -> Array:
        return self.right.predict(z)

    def forward(self, z: Array, target: Array) -> tuple[Array, Any]:
        loss, residuals = self.right.forward(z, target)
        return (loss if self.gradient_only else -loss), residuals

    def backward(self, residuals: Any) -> Array:
        return -self.right.backward(residuals)

    def count(self, z: Array) -> int:
        return self.right.count(z)
