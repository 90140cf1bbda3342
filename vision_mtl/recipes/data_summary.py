"""Print what was found in the images and labels, count them in tables, and write them as WebDataset shards."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from vision_mtl.config.run_config import RunConfig
from vision_mtl.core.files import atomic_write_json
from vision_mtl.core.run import Run
from vision_mtl.core.text import one_line, short_sources
from vision_mtl.data.findings import Findings
from vision_mtl.data.pool import Pool
from vision_mtl.data.shards import write_shards
from vision_mtl.data.source import SPLITS
from vision_mtl.data.store import Settings
from vision_mtl.evaluation.jackknife import MIN_CLUSTERS
from vision_mtl.recipes.findings_page import WIDTH as LINE
from vision_mtl.recipes.findings_page import findings_page
from vision_mtl.recipes.result_text import as_text
from vision_mtl.training.progress import DataProgress

FINDINGS = "findings.json"
CLASSES = 12  # classes named on the page; result.json has all
FEWER = 0.9  # a few copies among the images are no groups
EVEN = 0.1  # classes whose numbers of images differ by less are told in one line


def export_shards(
    config: RunConfig, run: Run, pool: Pool, folder: str, channels: int, shard_mb: float
) -> dict[str, Any]:
    """Write the shards, print their size and how to read them, and return their entry for `result.json`."""
    options, tasks = config.data, config.tasks
    where, settings = Path(folder).expanduser(), Settings(config.image_size, channels, options.fit)
    with DataProgress(run.speaker) as progress:
        shards = write_shards(pool, options, tasks, settings, where, max_bytes=int(shard_mb * 1e6), report=progress)
    samples, size = sum(shard.num_samples for shard in shards), sum(shard.num_bytes for shard in shards)
    run.show(f"{samples:,} images in {len(shards)} shards, {size / 1e6:.1f} MB; read them with 'wds/{where}/*.tar'")
    return {"shards": {shard.path.name: vars(shard) | {"path": str(shard.path)} for shard in shards}}


def show_findings(findings: Findings, run: Run) -> None:
    """Print the page of findings, write them to `findings.json`, and keep the warnings for `result.json`."""
    ordered = findings.by_importance()
    if run.is_main:
        atomic_write_json(run.folder / FINDINGS, [vars(finding) for finding in ordered])
    run.show(findings_page(ordered))
    run.warnings += [str(finding) for finding in findings.of("warning")]


def pixel_table(task: str, row: Mapping[str, Any]) -> Table:
    """Return a dense task's classes with their shares of the pixels, and what has no class or no mask."""
    table = Table(f"pixels of {task}", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("share", justify="right")
    for name, share in row["pixel_shares"].items():
        table.add_row(f"class {name}", _percent(share))
    table.add_row("without a class, of all", _percent(row["unlabelled_pixels"]))
    table.add_row("images without a mask", f"{row['images_without_mask']:,}")
    table.add_row("masks without an image", f"{row['unmatched_masks']:,}")
    return table


def _percent(share: float) -> str:
    return "< 0.01%" if 0 < share < 1e-4 else f"{share:.2%}"


def print_summary(facts: Mapping[str, Any], run: Run) -> None:
    """Print what `data_facts` counted: sources, original images, tasks, their labels, and the totals."""
    shown = short_sources(facts["sources"])
    for table in (_source_table(facts, shown), _original_table(facts, shown), _task_table(facts, shown)):
        if table.row_count:
            run.show(f"\n{as_text(table, LINE)}")
    run.show("")
    for name, row in facts["tasks"].items():
        run.show(class_text(name, row))
        if "pixel_shares" in row:
            run.show(as_text(pixel_table(name, row), LINE))
    for name, row in facts["sources"].items():
        if held := row.get("held_out"):
            count = f"{held['images']:,} images ({100 * held['share']:.0f} %)"
            text = f"{count} are held out of training, to score repairs on ({held['rule']})"
            run.show(_wrapped(f"{shown[name]}, without labels: {text}"))
    for name, clusters in facts["clusters"].items():
        if any(clusters[split] < FEWER * facts["sources"][name][split] for split in SPLITS):
            counts = ", ".join(f"{clusters[split]:,} {split}" for split in SPLITS)
            run.show(
                _wrapped(
                    f"clusters of {shown[name]} (images of one photograph, person or other group): {counts}; a score "
                    f"of fewer than {MIN_CLUSTERS} has no interval"
                )
            )
    for source, found in facts["value_ranges"].items():
        low, high = (f"{found[end]:.10g}" for end in ("low", "high"))
        told = f"{low} to {high} become 0 to 1 ({found['from']}); others are clipped"
        run.show(_wrapped(f"values of {shown[source]}: {told}"))
    run.show(
        f"{facts['num_images']:,} images, {facts['store_bytes'] / 1e6:.0f} MB decoded; "
        f"exact duplicates {facts['exact_duplicates']}, near duplicates {facts['near_duplicates']}, "
        f"unreadable {facts['unreadable']}"
    )


def _table(title: str, *heads: str, texts: Sequence[str] = ()) -> Table:
    """Return an empty table with columns of numbers `heads` and then of `texts`."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column(title, overflow="fold")  # names are not cut
    for head in heads:
        table.add_column(head, justify="right")
    for head in texts:
        table.add_column(head)
    return table


def _source_table(facts: Mapping[str, Any], shown: Mapping[str, str]) -> Table:
    table = _table("source", *SPLITS, "exact copies")
    for name, row in facts["sources"].items():
        table.add_row(shown[name], *(f"{row[head]:,}" for head in (*SPLITS, "exact_copies")))
    return table


def _original_table(facts: Mapping[str, Any], shown: Mapping[str, str]) -> Table:
    """Return the sizes in which the images came, with the range of them where they differ."""
    table = _table("original images of", "examined", "width", "height", texts=("mode", "format"))
    for name, row in facts["sources"].items():
        found = row["original"]
        if found["examined"]:
            sizes = (_range(found[side]) for side in ("width", "height"))
            counts = (_counted(found[kind]) for kind in ("modes", "formats"))
            all_of_them = found["examined"] == found["of"]
            table.add_row(shown[name], "all" if all_of_them else f"{found['examined']:,}", *sizes, *counts)
    return table


def _range(found: Mapping[str, float]) -> str:
    low, median, high = (f"{found[word]:.10g}" for word in ("low", "median", "high"))
    return median if low == high else f"{median} ({low}-{high})"


def _counted(counts: Mapping[str, int]) -> str:
    """Return the names with their counts if there are several: `RGB 998, grey 2`."""
    if len(counts) == 1:
        return next(iter(counts)) or "-"
    return ", ".join(f"{name or '-'} {count:,}" for name, count in counts.items())


def _task_table(facts: Mapping[str, Any], shown: Mapping[str, str]) -> Table:
    table = _table("task", *SPLITS, "classes", texts=("kind", "source"))
    for name, row in facts["tasks"].items():
        classes = f"{row['classes']:,}" if row["classes"] else "-"
        table.add_row(name, *(f"{row[split]:,}" for split in SPLITS), classes, row["kind"], shown[row["source"]])
    return table


def class_text(task: str, row: Mapping[str, Any]) -> str:
    """Return how many images each class of a task has: in a line if they have about as many, else in a table."""
    if values := row.get("values"):
        return _wrapped(f"values of {task}: " + "; ".join(f"{name} {_range(found)}" for name, found in values.items()))
    classes: Mapping[str, Mapping[str, int]] = row["images_by_class"]
    ends = {split: [op(counts[split] for counts in classes.values()) for op in (min, max)] for split in SPLITS}
    if all(high - low <= max(EVEN * high, 2) for low, high in ends.values()):
        each = ", ".join(f"{low if low == high else f'{low} to {high}'} {split}" for split, (low, high) in ends.items())
        names = ", ".join(map(one_line, list(classes)[:CLASSES]))
        more = f" and {len(classes) - CLASSES:,} more" if len(classes) > CLASSES else ""
        which = f"each of the {len(classes):,} classes" if len(classes) > 1 else "the only class"
        return _wrapped(f"{task}: {which} has {each} images: {names}{more}")
    return f"\n{as_text(_class_table(task, classes), LINE)}\n"


def _class_table(task: str, classes: Mapping[str, Mapping[str, int]]) -> Table:
    """Return the classes from the most to the fewest images, without those in the middle if they are many."""
    ordered = sorted(classes.items(), key=lambda pair: -sum(pair[1].values()))
    half = CLASSES // 2
    most, fewest = (ordered, []) if len(ordered) <= CLASSES else (ordered[:half], ordered[-half:])
    table = _table(f"class of {task}", *SPLITS)
    for name, counts in most:
        table.add_row(one_line(name), *(f"{counts[split]:,}" for split in SPLITS))
    if fewest:
        table.add_row(f"... {len(ordered) - 2 * half:,} others, in result.json ...")
    for name, counts in fewest:
        table.add_row(one_line(name), *(f"{counts[split]:,}" for split in SPLITS))
    return table


def _wrapped(text: str) -> str:
    return textwrap.fill(text, LINE, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
