"""Print what was found in the images and labels, count them in tables, and write them as WebDataset shards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from vision_mtl.config.run_config import RunConfig
from vision_mtl.core.files import atomic_write_json
from vision_mtl.core.run import Run
from vision_mtl.data.findings import Findings
from vision_mtl.data.pool import Pool
from vision_mtl.data.shards import write_shards
from vision_mtl.data.source import SPLITS
from vision_mtl.data.store import Settings
from vision_mtl.evaluation.jackknife import MIN_CLUSTERS
from vision_mtl.recipes.findings_page import findings_page
from vision_mtl.recipes.result_text import as_text
from vision_mtl.training.progress import DataProgress

FINDINGS = "findings.json"


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


def print_summary(pool: Pool, run: Run) -> None:
    """Print how many images each source and task has in each split, and the pool's totals."""
    if not run.is_main:
        return
    summary = pool.summary()
    for title, section in (("source", "sources"), ("task", "tasks")):
        if summary[section]:
            table = Table(title, box=SIMPLE_HEAD, pad_edge=False)
            heads = [*SPLITS, *(["classes", "kind"] if section == "tasks" else [])]
            for head in heads:
                table.add_column(head, justify="right")
            for name, row in summary[section].items():
                values = [row[head] for head in heads]
                table.add_row(name, *(value if isinstance(value, str) else f"{value:,}" for value in values))
            run.show(as_text(table))
    for name, clusters in summary["clusters"].items():
        if clusters != summary["sources"][name]:
            shown = ", ".join(f"{clusters[split]:,} {split}" for split in SPLITS)
            run.show(
                f"clusters of {name} (images of one photograph, person or other group): {shown}; a score of fewer "
                f"than {MIN_CLUSTERS} has no interval"
            )
    for name, row in summary["tasks"].items():
        if "pixel_shares" in row:
            run.show(as_text(pixel_table(name, row)))
    for source, found in summary["value_ranges"].items():
        low, high = (f"{found[end]:.10g}" for end in ("low", "high"))
        run.show(f"values of {source}: {low} to {high} become 0 to 1 ({found['from']}); others are clipped")
    run.show(
        f"{len(pool):,} images, {summary['store_bytes'] / 1e6:.0f} MB decoded; "
        f"exact duplicates {summary['exact_duplicates']}, near duplicates {summary['near_duplicates']}, "
        f"unreadable {summary['unreadable']}"
    )
