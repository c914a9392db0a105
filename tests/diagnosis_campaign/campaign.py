"""Diagnose every fault and every sound config, and count: what is found, what comes first, what is a false alarm."""

from __future__ import annotations

import argparse
import json
import runpy
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from zlib import crc32

from diagnosis_campaign import verify
from diagnosis_campaign.corpus import FAULTS, HALVES, Case, faults, healthy
from diagnosis_campaign.law import contradictions

import cnnbp_cli as cnnbp

JOBS = 2
COUNTED = ("error", "warning")
"""Severities that count as found, or as an alarm; information is neither."""

RECALL, FIRST, CURED, WARNINGS = 0.97, 0.9, 0.8, 0.08
"""The goals; besides, no error in any sound config, and no contradiction in any report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What the diagnosis says about a case.

    Attributes
    ----------
    name, half : str
    expects : str or None
        None for a sound config.
    right : tuple of str
        Rules that are right as the first finding.
    findings : list of (rule, severity)
        In the order in which they are told.
    cured : bool or None
        Whether the remedy of the expected finding, or else of the first, helps; None where it is a sentence, or was
        not tried.
    contradictions : list of str
        What breaks the law over all reports.
    seconds : float
    """

    name: str
    half: str
    expects: str | None
    right: tuple[str, ...]
    findings: list[tuple[str, str]]
    cured: bool | None
    contradictions: list[str] = field(default_factory=list)
    seconds: float

    @property
    def counted(self) -> list[str]:
        return [rule for rule, severity in self.findings if severity in COUNTED]

    @property
    def found(self) -> bool:
        return self.expects in self.counted

    @property
    def first(self) -> bool:
        return self.counted[:1] == [self.expects]

    @property
    def first_is_right(self) -> bool:
        return bool(self.counted) and self.counted[0] in self.right


def examine(case: Case, confirm: bool) -> Result:
    """Diagnose one case."""
    started = perf_counter()
    report = cnnbp.diagnose_model(*case.broken(), confirm=confirm and case.expects is not None)
    told = [finding for finding in report.findings if finding.severity in COUNTED]
    meant = [finding for finding in told if finding.rule == case.expects] or told[:1]
    return Result(
        name=case.name,
        half=case.half,
        expects=case.expects,
        right=case.right,
        findings=[(finding.rule, finding.severity) for finding in report.findings],
        cured=meant[0].confirmed if meant else None,
        contradictions=contradictions(report.findings),
        seconds=perf_counter() - started,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit code: 1 when a goal is missed."""
    parser = argparse.ArgumentParser(prog="python tests/diagnosis_campaign", description=__doc__)
    parser.add_argument("names", nargs="*", help="only these cases, by the names of their files")
    parser.add_argument("--half", choices=HALVES, help="only the cases to choose thresholds by, or the others")
    parser.add_argument("--confirm", action="store_true", help="try the remedies, too")
    parser.add_argument("--verify", action="store_true", help="train the cases to the end: are they what they claim?")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every finding")
    options = parser.parse_args(arguments)
    runpy.run_path(str(FAULTS / "make_data.py"))["make"]()
    cases = [case for case in (*faults(), *healthy()) if options.half in (None, case.half)]
    if unknown := set(options.names) - {case.name for case in cases}:
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    if options.names:
        cases = [case for case in cases if case.name in options.names]
    cases.sort(key=lambda case: crc32(case.path.name.encode()) % 997)  # so that a part of them says something about all
    started = perf_counter()
    with ProcessPoolExecutor(JOBS, mp_context=get_context("spawn")) as pool:
        if options.verify:
            return _verified(pool, cases)
        waiting = {pool.submit(examine, case, options.confirm): case for case in cases}
        results: list[Result] = []
        for future in as_completed(waiting):
            results.append(future.result())
            print(_line(results[-1]), flush=True)
    results.sort(key=lambda result: result.name)
    if options.json:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=1), encoding="utf-8")
    print()
    print(report_on(results, confirm=options.confirm))
    print(f"\n{perf_counter() - started:.0f} s with {JOBS} processes, {sum(r.seconds for r in results):.0f} s of work")
    return int(not options.names and not goals_met(results, confirm=options.confirm))


def _verified(pool: ProcessPoolExecutor, cases: list[Case]) -> int:
    wrong = 0
    for case, (figures, complaint) in zip(cases, pool.map(verify.complaint, cases), strict=True):
        wrong += bool(complaint)
        print(
            f"{'WRONG' if complaint else 'right'}  {case.name}: {figures}{'; ' if complaint else ''}{complaint}",
            flush=True,
        )
    print(f"{wrong} of {len(cases)} cases are not what they claim to be")
    return int(wrong > 0)


def _line(result: Result) -> str:
    if result.expects is None:
        mark = "ALARM" if any(severity == "error" for _, severity in result.findings) else "quiet"
    else:
        mark = "first" if result.first else "right" if result.found and result.first_is_right else "later"
        mark = mark if result.found else "MISS"
    cured = {None: "", True: " cured", False: " NOT cured"}[result.cured]
    told = ", ".join(
        f"{rule}{'' if severity == 'error' else ' (' + severity + ')'}" for rule, severity in result.findings
    )
    against = f" CONTRADICTION: {'; '.join(result.contradictions)}" if result.contradictions else ""
    what = f"{result.name} [{result.expects or 'sound'}]{cured}"
    return f"{mark:5} {result.seconds:5.1f} s  {what}: {told or 'nothing'}{against}"


# ---------------------------------------------------------------------- figures


def report_on(results: Sequence[Result], *, confirm: bool = False) -> str:
    """Return the figures, for each half and for both, and the confusion table, as text."""
    parts = [_figures(half, [r for r in results if r.half == half], confirm) for half in HALVES]
    parts.append(_figures("both halves", results, confirm))
    parts.append(_table(results))
    missed = [r for r in results if r.expects and not r.found]
    parts.append("missed: " + (", ".join(f"{r.name} ({r.expects})" for r in missed) or "none"))
    alarms = [r for r in results if r.expects is None and any(severity == "error" for _, severity in r.findings)]
    parts.append("false errors: " + (", ".join(r.name for r in alarms) or "none"))
    against = [f"{r.name} ({'; '.join(r.contradictions)})" for r in results if r.contradictions]
    parts.append("contradictions: " + (", ".join(against) or "none"))
    if confirm:
        uncured = [r.name for r in results if r.expects and r.cured is False]
        parts.append("not cured: " + (", ".join(uncured) or "none"))
    return "\n\n".join(parts)


def goals_met(results: Sequence[Result], *, confirm: bool = False) -> bool:
    """Return whether the results reach the goals."""
    broken = [r for r in results if r.expects]
    sound = [r for r in results if r.expects is None]
    return (
        _share(broken, "found") >= RECALL
        and _share(broken, "first_is_right") >= FIRST
        and not any(severity == "error" for r in sound for _, severity in r.findings)
        and sum(severity == "warning" for r in sound for _, severity in r.findings) <= WARNINGS * len(sound)
        and not any(r.contradictions for r in results)
        and (not confirm or _share(broken, "cured") >= CURED)
    )


def _share(results: Sequence[Result], what: str) -> float:
    return sum(bool(getattr(r, what)) for r in results) / max(1, len(results))


def _figures(title: str, results: Sequence[Result], confirm: bool) -> str:
    broken, sound = [r for r in results if r.expects], [r for r in results if not r.expects]
    lines = [f"{title}: {len(broken)} faults, {len(sound)} sound configs"]
    if broken:
        told = [(rule, r) for r in broken for rule, severity in r.findings if severity == "error"]
        right = sum(rule in r.right for rule, r in told)
        lines += [
            f"  the expected rule is among the findings   {_share(broken, 'found'):6.1%}",
            f"  it is the first finding                   {_share(broken, 'first'):6.1%}",
            f"  the first is it, or one as right          {_share(broken, 'first_is_right'):6.1%}",
            f"  errors that are the fault, or as right    {right / max(1, len(told)):6.1%} of {len(told)}",
        ]
        if confirm:
            tried = [r for r in broken if r.cured is not None]
            lines += [
                f"  the remedy cures                          {_share(broken, 'cured'):6.1%} of all faults",
                f"{'':44}{_share(tried, 'cured'):6.1%} of {len(tried)} with overrides",
            ]
    if sound:
        count = Counter(severity for r in sound for _, severity in r.findings)
        lines += [
            f"  {kind + 's per sound config':41} {count[kind] / len(sound):6.3f} ({count[kind]})" for kind in COUNTED
        ]
    return "\n".join(lines)


def _table(results: Sequence[Result]) -> str:
    """Return how often each rule is expected, found, first, and found where it is not right."""
    rules = sorted({r.expects for r in results if r.expects} | {rule for r in results for rule, _ in r.findings})
    width = max(map(len, rules), default=4)
    lines = [f"{'rule':{width}}  faults  found  first  recall  precision  elsewhere  sound  comes first instead"]
    for rule in rules:
        own = [r for r in results if r.expects == rule]
        errors = [r for r in results if (rule, "error") in r.findings]
        right = [r for r in errors if rule in r.right]
        sound = [r for r in results if r.expects is None and rule in r.counted]
        instead = Counter(r.counted[0] if r.counted else "nothing" for r in own if not r.first)
        recall = f"{_share(own, 'found'):7.0%}" if own else "      –"
        precision = f"{len(right) / len(errors):10.0%}" if errors else "         –"
        names = ", ".join(f"{name} {count}" for name, count in instead.most_common())
        lines.append(
            f"{rule:{width}}  {len(own):6}  {sum(r.found for r in own):5}  {sum(r.first for r in own):5} {recall} "
            f"{precision}  {len([r for r in errors if r.expects and rule not in r.right]):9}  {len(sound):5}  {names}"
        )
    return "\n".join(lines)
