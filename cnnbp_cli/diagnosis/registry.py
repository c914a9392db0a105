"""The rules by name: each is a pure function of the evidence, declared together with the text that explains it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from cnnbp_cli.config.errors import suggestion
from cnnbp_cli.diagnosis.findings import Finding
from cnnbp_cli.errors import UserError

if TYPE_CHECKING:
    from cnnbp_cli.diagnosis.evidence import Evidence

Family = Literal["data", "start", "network", "progress", "generalisation", "flow"]
FAMILIES: tuple[Family, ...] = get_args(Family)

Check = Callable[["Evidence"], Iterator[Finding]]


class UnknownRuleError(UserError):
    """No rule and no family has the name."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes
    ----------
    name : str
        That of its function, with dashes.
    family : Family
        The module that declares it.
    definition : str
        What the rule says, in one sentence.
    formula : str
        What is measured, and when that is a finding.
    source : str
        Where the rule comes from in the literature.
    advice : str
        What to do.
    check : Check
        Its findings, without the rule's name.
    """

    name: str
    family: Family
    definition: str
    formula: str
    source: str
    advice: str
    check: Check

    def findings(self, evidence: Evidence) -> Iterator[Finding]:
        """Yield what the rule finds, under its name."""
        for finding in self.check(evidence):
            yield replace(finding, rule=self.name)

    def to_dict(self) -> dict[str, Any]:
        """Return the texts, for JSON."""
        return {key: getattr(self, key) for key in ("name", "family", "definition", "formula", "source", "advice")}


RULES: dict[str, Rule] = {}
"""All rules by name."""


def rule(*, definition: str, formula: str, source: str, advice: str) -> Callable[[Check], Check]:
    """Declare a rule; the function gives the name, its module the family."""

    def declare(check: Check) -> Check:
        name, family = check.__name__.replace("_", "-"), check.__module__.rpartition(".")[2]
        RULES[name] = Rule(name, cast(Family, family), definition, formula, source, advice, check)
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
    spelled = _as_spelled(name)
    if spelled not in RULES:
        raise UnknownRuleError(f"unknown rule '{name}'{suggestion(name, list(RULES))}")
    return RULES[spelled]


def _named(word: str) -> list[str]:
    spelled = _as_spelled(word)
    if spelled in FAMILIES:
        return [rule.name for rule in RULES.values() if rule.family == spelled]
    if spelled not in RULES:
        raise UnknownRuleError(f"unknown rule or family '{word}'{suggestion(word, [*RULES, *FAMILIES])}")
    return [spelled]


def _as_spelled(name: str) -> str:
    """Return a name as it is declared: names are a contract, and some of them have the British spelling."""
    british = name.replace("ized", "ised").replace("ization", "isation")
    return british if british in RULES or british in FAMILIES else name
