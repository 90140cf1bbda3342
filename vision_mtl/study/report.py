"""The report of a study: one page that carries all it shows, its twin in Markdown, and the tables as CSV.

Both pages are made of the same words and tables, so they cannot disagree. Nothing in them depends on the moment or the
machine that writes them: the same record gives the same bytes. The page loads nothing, and holds no script.
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
from vision_mtl.study.number_format import Unit, measure_words, share_words
from vision_mtl.study.pictures import Plate, plot_plate, read_plates, slug
from vision_mtl.study.words import design_words, headline, how_to_read, summaries, verdict_sentence
from vision_mtl.viz.studies import differences_figure, label_curves_figure

HTML, MARKDOWN = "report.html", "report.md"
Record = Mapping[str, Any]


class MarkdownText(str):
    """Text that is Markdown already."""


def write_report(record: Record, folder: Path) -> None:
    """`report.html`, `report.md`, `tables/*.csv` and `figures/*` of a study, into `folder`.

    The keys of `record` are in docs/results.md. A picture that cannot be read is named among the warnings. Raises
    `UserError` where the folder cannot be written.
    """
    plates, missing = read_plates(record["pictures"])
    page = _page(record, plates, missing)
    shown = [*page["curves"], *page["forests"], *plates]
    for plate in shown:
        atomic_write_bytes(folder / plate.path, plate.file)
    for name, text in csv_files(record).items():
        atomic_write_text(folder / "tables" / f"{name}.csv", text)
    atomic_write_text(folder / MARKDOWN, _markdown().get_template("report.md.j2").render(page))
    atomic_write_text(folder / HTML, _html().get_template("report.html.j2").render(page))


def _page(record: Record, plates: Sequence[Plate], missing: Sequence[str]) -> dict[str, Any]:
    """Everything that the templates show, in words."""
    units = tables.units(record)
    comparisons = record["comparisons"]
    return {
        "record": record,
        "design": design_words(record),
        "headline": headline(comparisons),
        "summaries": summaries(comparisons) if len(comparisons) > 1 else [],
        "groups": _groups(record, units),
        "reading": how_to_read(record),
        "curves": _curves(record, units),
        "forests": _forests(record, units),
        "comparisons": tables.comparisons_table(record),
        "tasks": tables.tasks_table(record),
        "scores": tables.scores_table(record),
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
    """The verdicts in words, a group a task, and in it a list for each share of the labels."""
    known, m = tables.chances(record), len(record["comparisons"])
    groups = []
    for task, about in record["tasks"].items():
        found = _of(task, record, "comparisons")
        sentences = [verdict_sentence(one, units[task], m, tables.chance_of(one, known)) for one in found]
        shares = [list(at) for _, at in groupby(sentences, key=lambda sentence: sentence.share)]
        groups.append({"task": task, "measure": measure_words(about), "shares": shares})
    return [group for group in groups if group["shares"]]


def _curves(record: Record, units: Mapping[str, Unit]) -> list[Plate]:
    plates = []
    for number, (task, about) in enumerate(record["tasks"].items(), 1):
        rows, measure = _of(task, record, "scores"), measure_words(about)
        figure = label_curves_figure(rows, list(record["arms"]), factor=units[task].factor, label=measure)
        told = [f"{row['arm']} with {share_words(row['fraction'])} {units[task].score(row['score'])}" for row in rows]
        alt = f"{task}, {measure}, with 95 % intervals: {'; '.join(told)}."
        if figure is not None:
            plates.append(plot_plate(figure, f"scores-{number}-{slug(task)}", task, alt))
    return plates


def _forests(record: Record, units: Mapping[str, Unit]) -> list[Plate]:
    plates = []
    for number, (task, about) in enumerate(record["tasks"].items(), 1):
        found, unit = _of(task, record, "comparisons"), units[task]
        titles = [f"{share_words(one['fraction'])}: {one['arm']} − {one['baseline']}" for one in found]  # noqa: RUF001
        label = f"difference in {about['metric']}, {unit.name} (right of 0: the first arm is better)"
        figure = differences_figure(found, titles, factor=unit.factor, label=label)
        pairs = zip(titles, found, strict=True)
        told = "; ".join(f"{title} {unit.difference(one['difference'])}, {one['verdict']}" for title, one in pairs)
        if figure is not None:
            name = f"differences-{number}-{slug(task)}"
            plates.append(plot_plate(figure, name, task, f"{task}, differences: {told}."))
    return plates


def _expected(record: Record) -> str:
    """The spread that the design was reckoned with, in the units of the tasks."""
    std = record["before"]["expected_std"]
    have_classes = {label_kind(task["kind"]).has_classes for task in record["tasks"].values()}
    if std is None:
        return ""
    told = {True: f"{100 * std:.3g} points", False: f"{std:.3g} units of the label"}
    return " or ".join(told[found] for found in sorted(have_classes, reverse=True))


def _of(task: str, record: Record, key: str) -> list[Any]:
    """The task's rows, those of the smallest share of its labels first."""
    return sorted((row for row in record[key] if row["task"] == task), key=lambda row: row["fraction"])


def _html() -> Environment:
    found = _environment(autoescape=True)
    found.globals["zip"] = zip
    found.filters |= {"data_uri": _data_uri, "tight": _tight}
    return found


def _markdown() -> Environment:
    """Jinja knows HTML only: here `finalize` escapes all that is put into the template and is not `MarkdownText`."""
    found = _environment(autoescape=False, finalize=_escaped)
    found.filters |= {"fenced": _fenced, "table": _pipe_table, "alt": _alternative}
    return found


def _environment(**options: Any) -> Environment:
    loader = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, **options)


def _data_uri(plate: Plate) -> str:
    return f"data:{plate.kind};base64,{base64.b64encode(plate.inline).decode()}"


def _tight(text: str) -> str:
    """The same words, where no line ends within an interval or before a per cent sign."""
    return re.sub(r"\[[^\[\]]{1,40}\]", lambda found: found[0].replace(" ", "\u00a0"), text).replace(" %", "\u00a0%")


def _escaped(value: Any) -> Any:
    """Plain text as Markdown shows it literally, on one line; also within the cell of a table."""
    if isinstance(value, MarkdownText) or not isinstance(value, str):
        return value
    line = " ".join(value.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*|~$#])", r"\\\1", line)
    line = re.sub(r"(?<![^\W_])_|_(?![^\W_])", r"\_", line)  # within a word it is no emphasis
    return re.sub(r"^[-+](?= )|^\[|\](?=[(\[:])", r"\\\g<0>", line)  # no list, no link; an interval stays as it is


def _alternative(text: str) -> MarkdownText:
    """The text that stands for a picture: within brackets of its own."""
    return MarkdownText(re.sub(r"(?<!\\)[\[\]]", r"\\\g<0>", _escaped(text)))


def _pipe_table(table: tables.Table) -> MarkdownText:
    columns = list(table.columns)
    rules = ["---:" if column in table.numbers else "---" for column in columns]
    rows = [[_escaped(cell) for cell in row] for row in (columns, *table.rows)]
    return MarkdownText("\n".join("| " + " | ".join(row) + " |" for row in (rows[0], rules, *rows[1:])))


def _fenced(text: str, language: str = "") -> MarkdownText:
    """A block of code that ends where it should, whatever backticks the text has."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return MarkdownText(f"{fence}{language}\n{text.rstrip()}\n{fence}")
