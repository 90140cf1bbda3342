"""The result of a run: status, scores by name, and the metrics of `result.json`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

from vision_mtl.core.errors import unknown
from vision_mtl.evaluation.scores import Score
from vision_mtl.inference.html import Markup, facts, table

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 24  # scores in a notebook; the rest are counted
KEYS = tuple(field.name for field in fields(Score))


@dataclass(frozen=True)
class Result:
    """`result.json` of a run. `result["skill.grid_mask"]` is a `Score` by its dotted name below `metrics`."""

    stage: str
    status: str
    seed: int
    images_seen: int
    seconds: float  # of training
    warnings: list[str]
    data: dict[str, Any]
    metrics: dict[str, Any]
    error: str | None = None

    @classmethod
    def read(cls, found: Mapping[str, Any]) -> Result:
        """From the content of `result.json`, whose other keys are left out."""
        return cls(**{field.name: found[field.name] for field in fields(cls) if field.name in found})

    @property
    def by_name(self) -> dict[str, Score]:
        """Dotted name -> score, in the order of the file: value, low and high (95 %), n, num_clusters."""
        return dict(_scores("", self.metrics))

    @property
    def scores(self) -> pd.DataFrame:
        """The same as a table: a row a score, its name the index."""
        import pandas as pd  # late: half a second that only a table is worth

        rows = {name: score.to_json() for name, score in self.by_name.items()}
        return pd.DataFrame.from_dict(rows, orient="index", columns=list(KEYS))

    def __getitem__(self, name: str) -> Score:
        """A score by its dotted name; raises `UserError` naming the nearest."""
        found = self.by_name
        if name not in found:
            raise unknown("score", name, found)
        return found[name]

    def scores_html(self) -> Markup:
        """The first scores as a table for a page, and how many more there are."""
        found = self.by_name
        rows = [(name, score_text(score), f"{score.n:,}") for name, score in list(found.items())[:SHOWN]]
        more = f"<p>and {len(found) - SHOWN} more in <code>result.scores</code></p>" if len(found) > SHOWN else ""
        return Markup(table(rows, ("score", "value and 95 % interval", "n")) + more if rows else "")

    def _repr_html_(self) -> str:
        about = {"stage": self.stage, "status": self.status, "error": self.error, "warnings": "; ".join(self.warnings)}
        return Markup(facts(about) + self.scores_html())


def score_text(score: Score) -> str:
    """A value with its interval, if it has one."""
    interval = "" if score.low is None else f" ({score.low:.3f} to {score.high:.3f})"
    return f"{score.value:.3f}{interval}"


def _scores(prefix: str, value: Any) -> Iterator[tuple[str, Score]]:
    """Every score within nested mappings, under its dotted name. Lists (a study's rows) are other properties."""
    if not isinstance(value, Mapping):
        return
    if set(KEYS) <= value.keys():
        yield prefix, Score(**{key: value[key] for key in KEYS})
        return
    for key, inner in value.items():
        yield from _scores(f"{prefix}.{key}" if prefix else key, inner)
