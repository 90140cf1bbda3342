"""What is wrong or noteworthy about a user's images and labels, collected so that one message can tell all of it.

An error means that a label or an image would be read wrongly, so no training starts. A warning may mislead a result. A
note only says what was done. Code that finds an error records it and continues with the part that is unambiguous;
`raise_errors` then ends each phase that has errors, before the next and more expensive phase starts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from vision_mtl.core.errors import UserError


class DataErrors(UserError):
    """Errors that were recorded as findings, in one message."""


Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")  # most important first


@dataclass(frozen=True)
class Finding:
    """One finding: `text` says what was found and where, `advice` what to do or type, `images` how many it concerns."""

    severity: Severity
    text: str
    advice: str = ""
    images: int = 0

    def __str__(self) -> str:
        space = "" if self.text.endswith("\n") else " "
        return f"{self.text}{space}{self.advice}".strip()


class Findings:
    """The findings of a run's data, in the order in which they were made.

    `keep_going`: `raise_errors` does nothing, so that `--stage data` can show every error at once.
    """

    def __init__(self, keep_going: bool = False) -> None:
        self.keep_going = keep_going
        self.all: list[Finding] = []

    def error(self, text: str, advice: str = "", images: int = 0) -> None:
        """Record an error; `raise_errors` raises it."""
        self.add([Finding("error", text, advice, images)])

    def warn(self, text: str, advice: str = "", images: int = 0) -> None:
        """Record a warning."""
        self.add([Finding("warning", text, advice, images)])

    def note(self, text: str, advice: str = "", images: int = 0) -> None:
        """Record a note."""
        self.add([Finding("note", text, advice, images)])

    def add(self, findings: Iterable[Finding]) -> None:
        """Record findings, each once."""
        self.all += [finding for finding in dict.fromkeys(findings) if finding not in self.all]

    def of(self, severity: Severity) -> list[Finding]:
        """Return the findings of one severity."""
        return [finding for finding in self.all if finding.severity == severity]

    def by_importance(self) -> list[Finding]:
        """Return all findings: errors, warnings, notes; in each, first those that concern most images."""
        return sorted(self.all, key=lambda finding: (SEVERITIES.index(finding.severity), -finding.images))

    def raise_errors(self, even_if_kept: bool = False) -> None:
        """Raise `DataErrors` with all errors found so far; with `keep_going` only if `even_if_kept`."""
        errors = self.of("error")
        if not errors or (self.keep_going and not even_if_kept):
            return
        if len(errors) == 1:
            raise DataErrors(str(errors[0]))
        listed = "\n".join(f"{number}. {error}" for number, error in enumerate(errors, start=1))
        raise DataErrors(f"{len(errors)} errors in the data:\n{listed}")

    @contextmanager
    def catching(self) -> Iterator[None]:
        """Record a `UserError` of the block as an error if `keep_going`, else raise it; `DataErrors` are recorded."""
        try:
            yield
        except UserError as error:
            if not self.keep_going:
                raise
            if not isinstance(error, DataErrors):
                self.error(str(error))
