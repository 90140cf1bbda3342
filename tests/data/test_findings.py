"""Findings are collected, ordered by importance and raised together."""

import pytest

from vision_mtl.core.errors import UserError
from vision_mtl.data.findings import Finding, Findings


def test_one_error_is_raised_with_its_own_text() -> None:
    findings = Findings()
    findings.warn("a picture is dark.")
    findings.raise_errors()
    findings.error("two labels.", "Keep one.")
    with pytest.raises(UserError, match=r"^two labels\. Keep one\.$"):
        findings.raise_errors()


def test_several_errors_are_raised_in_one_message() -> None:
    findings = Findings()
    findings.error("two labels.")
    findings.error("no image.")
    with pytest.raises(UserError, match=r"^2 errors in the data:\n1\. two labels\.\n2\. no image\.$"):
        findings.raise_errors()


def test_findings_are_ordered_by_severity_and_images() -> None:
    findings = Findings()
    findings.note("a note", images=9)
    findings.warn("few", images=1)
    findings.warn("many", images=5)
    findings.error("an error")
    findings.warn("few", images=1)  # known
    assert [finding.text for finding in findings.by_importance()] == ["an error", "many", "few", "a note"]
    assert findings.of("note") == [Finding("note", "a note", images=9)]


def test_keep_going_records_errors_and_raises_none() -> None:
    findings = Findings(keep_going=True)
    with findings.catching():
        raise UserError("bad cell.")
    findings.raise_errors()
    assert [str(error) for error in findings.of("error")] == ["bad cell."]
    with pytest.raises(UserError, match="bad cell"), Findings().catching():
        raise UserError("bad cell.")
