"""The page on which `--stage data` tells what is wrong with the images and labels, most important first."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from vision_mtl.data.findings import SEVERITIES, Finding

WIDTH = 100  # characters of a line
SHOWN = 12  # findings of one severity on the page; findings.json holds all
TITLES = {
    "error": "ERRORS: no training starts until they are mended",
    "warning": "WARNINGS: results may mislead",
    "note": "NOTES",
}


def findings_page(findings: Sequence[Finding]) -> str:
    """Return the findings, ordered by importance, as numbered text with what to do about each after an arrow."""
    if not findings:
        return "nothing wrong was found in these images and labels"
    lines, number = [_headline(findings)], 0
    for severity in SEVERITIES:
        own = [finding for finding in findings if finding.severity == severity]
        if own:
            lines += ["", TITLES[severity]]
        for finding in own[:SHOWN]:
            number += 1
            lines += _lines(f"{number:>3}. ", finding.text)
            lines += _lines("     -> ", finding.advice) if finding.advice else []
        if len(own) > SHOWN:
            lines.append(f"     ... and {len(own) - SHOWN} more, in findings.json")
    return "\n".join(lines)


def _headline(findings: Sequence[Finding]) -> str:
    counts = [(sum(finding.severity == severity for finding in findings), severity) for severity in SEVERITIES]
    parts = [f"{count} {severity}{'s' if count > 1 else ''}" for count, severity in counts if count]
    return f"{', '.join(parts)} in these images and labels"


def _lines(first: str, text: str) -> list[str]:
    """Return the text wrapped; its own line breaks stay."""
    found = []
    for number, line in enumerate(text.rstrip().split("\n")):
        indent = first if number == 0 else " " * len(first)
        rest = " " * len(first) + line[: len(line) - len(line.lstrip())]
        found += textwrap.wrap(
            line, WIDTH, initial_indent=indent, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
        ) or [""]
    return found
