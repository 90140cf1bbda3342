"""Every package that is pinned has its licence listed."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_list_is_that_of_the_pins() -> None:
    pinned = re.findall(r"^([A-Za-z0-9_.-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    rows = re.findall(r"^\| [^|]+ \| ([^|]+) \|$", (ROOT / "docs" / "licences.md").read_text(), re.MULTILINE)
    listed = [name for row in rows if row != "packages" for name in row.split(", ")]
    assert sorted(listed) == sorted(pinned)
