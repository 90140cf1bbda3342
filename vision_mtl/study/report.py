"""The report of a study: a self-contained HTML page, the same in Markdown, and its tables as CSV.

Both pages are rendered from the same sentences and tables, so they agree. They do not depend on the time or the
machine: the same record gives the same bytes. The HTML page loads nothing and has no script.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from vision_mtl.core.files import atomic_write_bytes, atomic_write_text
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.study import tables
from vision_mtl.study.csv_files import csv_files
from vision_mtl.study.independence import marked
from vision_mtl.study.number_format import Unit, format_fraction, format_measure
from vision_mtl.study.pictures import Plate, plot_plate, read_plates, slug
from vision_mtl.study.verdict_text import (
    VERDICTS,
    design_size,
    family_size,
    headline,
    how_to_read,
    plain_verdict,
    summaries,
    verdict_sentence,
)
from vision_mtl.viz.studies import differences_figure, label_curves_figure

HTML, MARKDOWN = "report.html", "report.md"
Record = Mapping[str, Any]


class MarkdownText(str):
    """Text that is Markdown already, and is not escaped."""


def write_report(record: Record, folder: Path) -> None:
    """Write `report.html`, `report.md`, `tables/*.csv` and `figures/*` of a study into `folder`.

    docs/results.md lists the keys of `record`. An unreadable picture becomes a warning in the report. Raises
    `UserError` if the folder cannot be written.
    """
    plates, missing = read_plates(record["pictures"], folder)
    page = _page(record, plates, missing)
    shown = [*page["curves"], *page["forests"], *plates]
    for plate in shown:
        for path, content in plate.files.items():
            atomic_write_bytes(folder / path, content)
    for name, text in csv_files(record).items():
        atomic_write_text(folder / "tables" / f"{name}.csv", text)
    atomic_write_text(folder / MARKDOWN, _markdown().get_template("report.md.j2").render(page))
    atomic_write_text(folder / HTML, _html().get_template("report.html.j2").render(page))


def _page(record: Record, plates: Sequence[Plate], missing: Sequence[str]) -> dict[str, Any]:
    """Return the contents of the templates."""
    units = tables.units(record)
    comparisons = record["comparisons"]
    return {
        "record": record,
        "design": design_size(record),
        "headline": headline(comparisons),
        "summaries": summaries(comparisons) if len(comparisons) > 1 else [],
        "groups": _groups(record, units),
        "reading": how_to_read(record),
        "curves": _curves(record, units),
        "forests": _forests(record, units),
        "comparisons": tables.comparisons_table(record),
        "improvements": tables.improvements_table(record),
        "arms": tables.arms_table(record),
        "arm_costs": tables.arm_costs_table(record),
        "tasks": tables.tasks_table(record),
        "scores": tables.scores_table(record),
        "learned": tables.learned_table(record),
        "before": tables.design_table(record),
        "expected": _expected(record),
        "tuning": tables.tuning_table(record),
        "plates": plates,
        "warnings": [*record["warnings"], *missing],
        "recipes": {name: tables.recipe_table(arm) for name, arm in record["arms"].items()},
        "runs": tables.runs_table(record),
        "environment": tables.environment_table(record),
        "cost": tables.cost_table(record),
    }


def _groups(record: Record, units: Mapping[str, Unit]) -> list[dict[str, Any]]:
    """Return the verdicts as sentences: a group per task, with a list per label fraction."""
    known, compared = tables.chances(record), record["comparisons"]
    groups = []
    for task, about in record["tasks"].items():
        found = _rows(task, record, "comparisons")
        sentences = [
            verdict_sentence(one, units[task], family_size(one, compared), tables.chance_of(one, known))
            for one in found
        ]
        fractions = [list(at) for _, at in groupby(sentences, key=lambda sentence: sentence.fraction)]
        groups.append({"task": task, "measure": format_measure(about), "fractions": fractions})
    return [group for group in groups if group["fractions"]]


def _curves(record: Record, units: Mapping[str, Unit]) -> list[Plate]:
    plates = []
    for number, (task, about) in enumerate(record["tasks"].items(), 1):
        rows, measure = _rows(task, record, "scores"), format_measure(about)
        apart = {row["arm"]: row for row in rows}
        names = {arm: marked(arm, apart.get(arm, {})) for arm in record["arms"]}
        shown = [{**row, "arm": names[row["arm"]]} for row in rows]
        figure = label_curves_figure(shown, list(names.values()), factor=units[task].factor, label=measure)
        texts = [
            f"{row['arm']} with {format_fraction(row['fraction'])} {units[task].score(row['score'])}" for row in shown
        ]
        alt = f"{task}, {measure}, with 95 % intervals: {'; '.join(texts)}."
        if figure is not None:
            plates.append(plot_plate(figure, f"scores-{number}-{slug(task)}", task, alt))
    return plates


def _forests(record: Record, units: Mapping[str, Unit]) -> list[Plate]:
    plates = []
    for number, (task, about) in enumerate(record["tasks"].items(), 1):
        found, unit = _rows(task, record, "comparisons"), units[task]
        titles = [_title(one) for one in found]
        label = f"difference in {about['metric']}, {unit.name} (right of 0: the first arm is better)"
        shown = [{**one, "verdict": plain_verdict(one["verdict"])} for one in found]
        rope = next((one.get("rope") for one in found), None)
        figure = differences_figure(shown, titles, factor=unit.factor, label=label, rope=rope)
        pairs = zip(titles, found, strict=True)
        text = "; ".join(f"{title} {unit.difference(one['difference'])}, {one['verdict']}" for title, one in pairs)
        if figure is not None:
            name = f"differences-{number}-{slug(task)}"
            plates.append(plot_plate(figure, name, task, f"{task}, differences: {text}."))
    return plates


def _title(one: Record) -> str:
    limit = f" ({one['scope'].partition(':')[0]})" if one.get("scope") else ""
    return marked(f"{format_fraction(one['fraction'])}: {one['arm']} − {one['baseline']}{limit}", one)  # noqa: RUF001


def _expected(record: Record) -> str:
    """Return the standard deviation that the design assumes, in the units of the tasks."""
    std = record["before"]["expected_std"]
    have_classes = {label_kind(task["kind"]).has_classes for task in record["tasks"].values()}
    if std is None:
        return ""
    texts = {True: f"{100 * std:.3g} points", False: f"{std:.3g} units of the label"}
    return " or ".join(texts[found] for found in sorted(have_classes, reverse=True))


def _rows(task: str, record: Record, key: str) -> list[Any]:
    """Return the task's rows, in the order of label fractions."""
    return sorted((row for row in record[key] if row["task"] == task), key=lambda row: row["fraction"])


def _html() -> Environment:
    found = _environment(autoescape=True)
    found.globals |= {"zip": zip, "verdicts": VERDICTS}
    found.filters |= {"data_uri": _data_uri, "tight": _tight, "plain": plain_verdict}
    return found


def _markdown() -> Environment:
    """Return the environment of Markdown templates.

    Jinja can escape HTML only, so `finalize` escapes every inserted value that is not `MarkdownText`.
    """
    found = _environment(autoescape=False, finalize=_escaped)
    found.filters |= {"fenced": _fenced, "table": _pipe_table, "alt": _alternative}
    return found


def _environment(**options: Any) -> Environment:
    loader = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, **options)


def _data_uri(plate: Plate) -> str:
    return f"data:{plate.kind};base64,{base64.b64encode(plate.inline).decode()}"


def _tight(text: str) -> str:
    """Return the text with no line break inside an interval or before a per cent sign."""
    return re.sub(r"\[[^\[\]]{1,40}\]", lambda found: found[0].replace(" ", "\u00a0"), text).replace(" %", "\u00a0%")


def _escaped(value: Any) -> Any:
    """Return plain text escaped for Markdown, on one line, so that it can be a table's cell."""
    if isinstance(value, MarkdownText) or not isinstance(value, str):
        return value
    line = " ".join(value.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*|~$#])", r"\\\1", line)
    line = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", line)  # inside a word it is no emphasis
    return re.sub(r"^[-+](?= )|^\[|\](?=[(\[:])", r"\\\g<0>", line)  # no list, no link; intervals stay unescaped


def _alternative(text: str) -> MarkdownText:
    """Return a picture's alternative text, with its brackets escaped."""
    return MarkdownText(re.sub(r"(?<!\\)[\[\]]", r"\\\g<0>", _escaped(text)))


def _pipe_table(table: tables.Table) -> MarkdownText:
    columns = list(table.columns)
    rules = ["---:" if column in table.numbers else "---" for column in columns]
    rows = [[_escaped(cell) for cell in row] for row in (columns, *table.rows)]
    return MarkdownText("\n".join("| " + " | ".join(row) + " |" for row in (rows[0], rules, *rows[1:])))


def _fenced(text: str, language: str = "") -> MarkdownText:
    """Return a code block whose fence is longer than any run of backticks in the text."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return MarkdownText(f"{fence}{language}\n{text.rstrip()}\n{fence}")
