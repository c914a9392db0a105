"""The rules by name: each is a pure function of a case, declared together with the text that explains it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from cnnbp_cli.config.errors import suggestion
from cnnbp_cli.diagnosis.findings import Finding
from cnnbp_cli.errors import UserError

if TYPE_CHECKING:
    from cnnbp_cli.diagnosis.case import Case

Family = Literal["data", "start", "network", "progress", "generalisation", "flow"]
FAMILIES: tuple[Family, ...] = ("data", "start", "network", "progress", "generalisation", "flow")

Check = Callable[["Case"], Iterator[Finding]]


class UnknownRuleError(UserError):
    """No rule and no family has the name."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes
    ----------
    name : str
    family : Family
    order : int
        Its place among causes and symptoms: of findings of the same severity, the smaller one comes first.
    definition : str
        What the rule says, in one sentence.
    formula : str
        What is measured, and when that is a finding.
    source : str
        Where the rule comes from in the literature.
    advice : str
        What to do.
    check : Check
    """

    name: str
    family: Family
    order: int
    definition: str
    formula: str
    source: str
    advice: str
    check: Check

    def to_dict(self) -> dict[str, Any]:
        """Return the texts, for JSON."""
        return {key: getattr(self, key) for key in ("name", "family", "definition", "formula", "source", "advice")}


RULES: dict[str, Rule] = {}
"""All rules by name."""


def rule(
    name: str, *, family: Family, order: int, definition: str, formula: str, source: str, advice: str
) -> Callable[[Check], Check]:
    """Declare a rule."""

    def declare(check: Check) -> Check:
        RULES[name] = Rule(name, family, order, definition, formula, source, advice, check)
        return check

    return declare


def chosen_rules(select: Sequence[str] | None = None, ignore: Iterable[str] = ()) -> list[Rule]:
    """Return the rules that are selected (all by default) and not ignored, by the names of rules and families.

    Raises
    ------
    UnknownRuleError
        When a name is neither.
    """
    wanted = {name for word in select for name in _named(word)} if select else set(RULES)
    unwanted = {name for word in ignore for name in _named(word)}
    return [rule for name, rule in RULES.items() if name in wanted - unwanted]


def rule_named(name: str) -> Rule:
    """Return a rule.

    Raises
    ------
    UnknownRuleError
        When there is none of this name.
    """
    if name not in RULES:
        raise UnknownRuleError(f"unknown rule '{name}'{suggestion(name, list(RULES))}")
    return RULES[name]


def _named(word: str) -> list[str]:
    if word in FAMILIES:
        return [rule.name for rule in RULES.values() if rule.family == word]
    if word not in RULES:
        raise UnknownRuleError(f"unknown rule or family '{word}'{suggestion(word, [*RULES, *FAMILIES])}")
    return [word]
