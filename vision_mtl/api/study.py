"""The results of a study: comparisons as a table, the report as a page."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vision_mtl.inference.html import Markup, escape
from vision_mtl.study.report import HTML, MARKDOWN
from vision_mtl.study.tables import units
from vision_mtl.study.verdict_text import family_size, headline, verdict_sentence

if TYPE_CHECKING:
    import pandas as pd

WITH_ENDS = ("arm_score", "baseline_score", "difference", "difference_holm")


def comparisons_table(comparisons: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """A row a comparison: task, fraction, arm, baseline, both scores, their difference with its ends, the verdict.

    Scores are shares in [0, 1], or minus the error of a regression; `low` and `high` are the ends of the 95 % interval,
    `low_holm` and `high_holm` of the one that the verdict goes by. `rope` is the largest difference that does not
    matter, `within_rope` whether the difference is shown to be smaller; `probability_of_improvement` is over pairs of
    runs.
    """
    import pandas as pd  # late: half a second that only a table is worth

    return pd.DataFrame([_row(one) for one in comparisons])


def _row(one: Mapping[str, Any]) -> dict[str, Any]:
    difference, deciding = one["difference"], one["difference_holm"]
    return {
        **{key: one[key] for key in ("task", "fraction", "arm", "baseline")},
        "arm_score": one["arm_score"]["value"],
        "baseline_score": one["baseline_score"]["value"],
        "difference": difference["value"],
        "low": difference["low"],
        "high": difference["high"],
        "low_holm": deciding["low"],
        "high_holm": deciding["high"],
        **{key: one[key] for key in ("minimum_detectable", "p_value", "p_value_holm", "num_seeds", "verdict")},
        "rope": one.get("rope"),
        "within_rope": one.get("within_rope"),
        "independent": one.get("independent", True),
        "probability_of_improvement": (one.get("probability_of_improvement") or {}).get("value"),
        "pretrainings": one.get("pretrainings"),
        "n": difference["n"],
    }


@dataclass(frozen=True)
class Report:
    """A study's report: `html` and `markdown` are its files, `record` all it is made of (`study.json`)."""

    html: Path
    markdown: Path
    record: Mapping[str, Any]

    @classmethod
    def of(cls, folder: Path, record: Mapping[str, Any]) -> Report:
        """The report in a study's folder."""
        return cls(folder / HTML, folder / MARKDOWN, record)

    @property
    def headline(self) -> str:
        """The verdicts of all comparisons in one sentence."""
        return headline(self.record["comparisons"])

    @property
    def sentences(self) -> list[str]:
        """Each comparison in words, with its numbers and its verdict."""
        found, known = self.record["comparisons"], units(self.record)
        told = [(one["task"], verdict_sentence(one, known[one["task"]], family_size(one, found))) for one in found]
        return [f"{task}, {sentence.fraction}: {sentence.text}." for task, sentence in told]

    def page(self, height: int = 600) -> Markup:
        """The whole page in a frame of `height` pixels, for a notebook: `IPython.display.HTML(report.page())`.

        It is copied into the notebook, which grows by as much.
        """
        text = html.escape(self.html.read_text("utf-8"))
        return Markup(f'<iframe style="width:100%;border:0" height="{int(height)}" srcdoc="{text}"></iframe>')

    def __repr__(self) -> str:
        return f"Report({str(self.html)!r}: {self.headline})"

    def _repr_html_(self) -> str:
        listed = "".join(f"<li>{escape(sentence)}</li>" for sentence in self.sentences)
        return Markup(
            f"<p><b>{escape(self.record['question'])}</b> {escape(self.headline)}</p><ul>{listed}</ul>"
            f"<p>The whole page: <code>{escape(self.html)}</code></p>"
        )
