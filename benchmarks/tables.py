"""Write the measured tables of the documents from their raw data, and below each table where it comes from.

    python benchmarks/tables.py [--check]

A table stands between `<!-- table: NAME -->` and `<!-- end -->`. NAME is a key of `TABLES`, or `study NAME`,
`scores NAME`, `recipes NAME` or `costs NAME` for `docs/studies/NAME/study.json`, or `trials NAME` for the list
`benchmarks/recipes/NAME.yaml`. The line below it names the file, the command, the
commit, the machine and, for scores of held-out images, the hash of the splits (`data.split_hash` of each run's
result.json). A table whose file is missing says which command measures it. `--check` writes nothing and exits with 1 if
a document is out of date.
"""

from __future__ import annotations

import argparse
import json
import posixpath
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

if Path(sys.path[0]).name == "benchmarks":
    sys.path.pop(0)  # this folder, whose statistics.py would hide Python's
sys.path.insert(0, str(Path(__file__).parent.parent))  # runs from a clone, without installation

from benchmarks import tables_first_run, tables_recipes, tables_speed, tables_statistics, tables_studies

ROOT = Path(__file__).parent.parent
RESULTS, STUDIES = "benchmarks/results", "docs/studies"
DOCUMENTS = ("README.md", "docs/measured.md", "docs/statistics.md", "docs/studies/README.md", f"{RESULTS}/README.md")
DOCUMENTS += ("docs/which_recipe.md",)
BLOCK = re.compile(r"(<!-- table: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
SOURCE = re.compile(r"<sub>(\[.+?\]\(.+?\)): .*</sub>")
OF_SITTING = ("command", "commit", "machine", "cpus", "processor", "device", "date")
OF_SITTING += ("split_hash", "split_options", "config")
COMMANDS, WORDS = 2, 5  # shown below a table: commands, and words of each; the file has all
Record = Mapping[str, Any]
Rows = list[list[str]]  # the first is the header


@dataclass(frozen=True)
class Table:
    """A table: the file of its raw data from the repository's root, what renders it, and the command that measures it.

    `part` is the entry of the file that it shows; None: all of it.
    """

    path: str
    render: Callable[[Record], Rows | str]
    command: str
    part: str | None = None

    def data(self) -> dict[str, Any] | None:
        """Return the raw data, or None if it has not been measured."""
        if not (ROOT / self.path).is_file():
            return None
        found = json.loads((ROOT / self.path).read_text("utf-8"))
        return found if self.part is None else found.get(self.part)


def of_script(name: str, render: Callable[[Record], Rows | str], words: str = "", part: str | None = None) -> Table:
    """Return the table of `benchmarks/NAME.py`."""
    return Table(f"{RESULTS}/{name}.json", render, f"python benchmarks/{name}.py {words}".rstrip(), part)


TABLES: dict[str, Table] = {
    **{name: of_script(name, render) for name, render in tables_speed.TABLES.items()},
    **{name: of_script("statistics", render) for name, render in tables_statistics.TABLES.items()},
    "repairs": of_script("repairs", tables_studies.repairs, "RUN ..."),
    "decoders": of_script("decoders", tables_studies.decoders),
    "rendered": of_script("rendered", tables_studies.rendered),
    "first run features": of_script("first_run", tables_first_run.features),
    "first run repairs": of_script("first_run", tables_first_run.repairs),
    "first run output": of_script("first_run", tables_first_run.output),
    "first run phases": of_script("first_run", tables_first_run.phases),
    "weights": of_script("weights", tables_recipes.weights, "configs/study/what_should_i_do.yaml --related objects20"),
    "peers speed": of_script("peers", tables_speed.peers_speed, "speed", "speed"),
    "peers search": of_script("peers", tables_studies.peers_search, "search", "search"),
    "peers scores": of_script("peers", tables_studies.peers_scores, "judge", "judge"),
    "peers judge": of_script("peers", tables_studies.peers_judge, "judge", "judge"),
}


def find_table(name: str) -> Table:
    """Return the table of that name; raises `KeyError` for an unknown one."""
    kind, _, study = name.partition(" ")
    if kind in tables_studies.OF_A_STUDY and study:
        command = f"train.py --config configs/study/{study}.yaml"
        return Table(f"{STUDIES}/{study}/study.json", tables_studies.OF_A_STUDY[kind], command)
    if kind == "trials" and study:
        path = f"benchmarks/recipes/{study}.yaml"
        render = partial(tables_recipes.trials, name=study, names=tables_recipes.setting_names(ROOT / path))
        return of_script("recipes", render, path)
    return TABLES[name]


def rendered_text(text: str, document: str) -> str:
    """Return the document's text with every table as its raw data says; a source that was given above is named only."""
    given: set[str] = set()

    def block(match: re.Match[str]) -> str:
        found = content(match[2], document)
        if source := SOURCE.search(found):
            if source[0] in given:
                found = found.replace(source[0], f"<sub>{source[1]}, as above</sub>")
            given.add(source[0])
        return f"{match[1]}\n{found}\n\n{match[3]}"

    return BLOCK.sub(block, text)


def content(name: str, document: str) -> str:
    """Return a table in Markdown with the line that says where it comes from, or what measures it."""
    if name == "studies":
        rows = tables_studies.studies(ROOT / STUDIES)
        return markdown(rows) if len(rows) > 1 else "*No report yet.*"
    table = find_table(name)
    data = table.data()
    if data is None:
        return f"*Not measured yet: `{table.command}`.*"
    shown = table.render(data)
    text = shown if isinstance(shown, str) else markdown(shown)
    return f"{text}\n\n{provenance(table, data, document)}"


def markdown(rows: Rows) -> str:
    """Return rows as a table."""
    head, *body = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def provenance(table: Table, data: Record, document: str) -> str:
    """Return the line below a table: file, and of each sitting command, commit, machine, date and splits."""
    link = posixpath.relpath(table.path, posixpath.dirname(document) or ".")
    by_place: dict[str, dict[str, dict[str, None]]] = {}  # machine and date -> command -> commits
    splits: dict[str, dict[str, None]] = {}  # machine and date -> hashes of splits
    for sitting in sittings(data):
        place = place_text(sitting)
        by_place.setdefault(place, {}).setdefault(command_text(sitting), {})[sitting["commit"][:7]] = None
        splits.setdefault(place, {}).update({sitting["split_hash"]: None} if "split_hash" in sitting else {})
    told = []
    for place, commands in by_place.items():
        shown, count = [f"{text} at commit {' and '.join(of)}" for text, of in commands.items()], len(commands)
        if count > COMMANDS + 1:
            shown = [*shown[:COMMANDS], f"{count - COMMANDS} more in the file"]
        hashes = [f"splits {' and '.join(splits[place])}"] if splits[place] else []
        told.append(" · ".join([", ".join(shown), place, *hashes]))
    return f"<sub>[{posixpath.basename(table.path)}]({link}): {'; '.join(told)}</sub>"


def command_text(sitting: Record) -> str:
    """Return the command of a sitting."""
    script, *words = sitting["command"]
    command = [script] if script == "train.py" else ["python", f"benchmarks/{script}"]
    if len(words) > WORDS:
        words = [*words[:WORDS], "..."]
    return f"`{shlex.join([*command, *words])}`"


def place_text(sitting: Record) -> str:
    """Return the machine and the date of a sitting, as far as they are recorded."""
    device = [] if sitting["device"] == "cpu" else [sitting["device"]]
    machine = ", ".join([*device, sitting.get("processor") or sitting["machine"], f"{sitting['cpus']} cores"])
    return " · ".join([machine, *([sitting["date"]] if "date" in sitting else [])])


def sittings(data: Any, above: Record | None = None) -> Iterator[dict[str, Any]]:
    """Yield every entry of a result that has a commit, also those of its parts; a study's is its `environment`.

    An entry within another has the command, machine and splits of that one, unless it names its own.
    """
    inherited = dict(above or {})
    if isinstance(data, Mapping):
        own = {key: data[key] for key in OF_SITTING if key in data}
        if "environment" in data:
            own = {**data["environment"], **own}
        if "commit" in own:
            inherited |= own
            yield dict(inherited)
        data = [value for key, value in data.items() if key != "environment"]
    for value in data if isinstance(data, list) else []:
        yield from sittings(value, inherited)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a document is out of date")
    given, changed = parser.parse_args(), []
    for document in DOCUMENTS:
        path = ROOT / document
        text = path.read_text("utf-8")
        new = rendered_text(text, document)
        if new != text:
            changed.append(document)
            if not given.check:
                path.write_text(new, "utf-8")
    said = "out of date" if given.check else "written"
    print(f"{said}: {', '.join(changed)}" if changed else "every table is as its raw data says")
    return int(given.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
