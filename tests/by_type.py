"""The members of a union of declarations, by the word that the config calls them."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, get_args

from cnnbp_cli.core.initializers import AnyInitializer
from cnnbp_cli.core.optim import Optimizer
from cnnbp_cli.core.schedules import Schedule


def by_type(union: Any) -> dict[str, Any]:
    return {field.default: cls for cls in get_args(union) for field in fields(cls) if field.name == "type"}


INITIALIZERS, OPTIMIZERS, SCHEDULES = by_type(AnyInitializer), by_type(Optimizer), by_type(Schedule)
