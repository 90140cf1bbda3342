"""The page of findings: order, wrapping, what to type, and what is left out."""

from vision_mtl.data.findings import Findings
from vision_mtl.recipes.findings_page import SHOWN, WIDTH, findings_page


def test_page_numbers_errors_before_warnings_and_gives_advice() -> None:
    findings = Findings(keep_going=True)
    findings.note("3 files are no images.")
    findings.warn("two copies:\n  a.png\n  b.png\n", "Delete one.", images=2)
    findings.error("'x.png' has two labels.", "Keep one.")
    assert findings_page(findings.by_importance()).split("\n") == [
        "1 error, 1 warning, 1 note in these images and labels",
        "",
        "ERRORS: no training starts until they are mended",
        "  1. 'x.png' has two labels.",
        "     -> Keep one.",
        "",
        "WARNINGS: results may mislead",
        "  2. two copies:",
        "       a.png",
        "       b.png",
        "     -> Delete one.",
        "",
        "NOTES",
        "  3. 3 files are no images.",
    ]


def test_page_wraps_text_and_counts_what_it_leaves_out() -> None:
    findings = Findings()
    for number in range(SHOWN + 2):
        findings.warn(f"{number}: " + "word " * 40, "advice " * 30)
    page = findings_page(findings.by_importance())
    assert all(len(line) <= WIDTH for line in page.split("\n"))
    assert page.endswith("... and 2 more, in findings.json")


def test_page_of_no_findings_says_so() -> None:
    assert findings_page([]) == "nothing wrong was found in these images and labels"
