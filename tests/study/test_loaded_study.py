"""A study's folder in Python: its comparisons as a table, its report as sentences and as a page."""

import json
from pathlib import Path

import pytest
from report_records import study

import vision_mtl
from vision_mtl.core.errors import UserError
from vision_mtl.study.report import write_report


def test_comparisons_and_report(tmp_path: Path) -> None:
    record = study({"labels <b>": 0.0, "pretrained": 0.2}, fractions=(0.1,))
    (tmp_path / "config.yaml").write_text("stage: study\n")
    run = vision_mtl.load_run(tmp_path)
    with pytest.raises(UserError, match=r"has not ended yet: there is no study\.json"):
        run.comparisons  # noqa: B018
    (tmp_path / "study.json").write_text(json.dumps(record))
    write_report(record, tmp_path)

    (row,) = run.comparisons.to_dict("records")
    assert (row["task"], row["arm"], row["baseline"], row["verdict"]) == ("pets", "pretrained", "labels <b>", "helps")
    assert row["low"] < row["difference"] < row["high"] and row["difference"] == pytest.approx(0.2, abs=0.01)
    assert row["low_holm"] <= row["low"] and row["n"] == 40
    assert run.report.headline == "In the one comparison, it helps."
    assert run.report.sentences[0].startswith("pets, 10 % labels: pretrained is +")
    page = run.report._repr_html_()
    assert "labels &lt;b&gt;" in page and "labels <b>" not in page and len(page) < 5000
    assert 'srcdoc="&lt;!doctype html' in run.report.page().replace("DOCTYPE", "doctype")
    assert run.tables["comparisons"].loc[0, "verdict"] == "helps" and any("differences" in n for n in run.figures)
