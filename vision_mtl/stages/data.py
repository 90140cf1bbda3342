"""The data of a config: decode, verify, count and show it; write it as shards; or delete the stores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from vision_mtl.config.resolve import RunConfig
from vision_mtl.config.stage import STAGES
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import Pool
from vision_mtl.data.shards import write_shards
from vision_mtl.data.source import SPLITS
from vision_mtl.data.store import Settings, clean
from vision_mtl.evaluation.features import spread_evenly
from vision_mtl.recipes import build
from vision_mtl.recipes.result_text import as_text
from vision_mtl.training.progress import DataProgress
from vision_mtl.viz.sheets import sheet_figure

SECTIONS = ("data", "tasks")


@STAGES.register("data")
def data(
    config: RunConfig,
    run: Run,
    *,
    channels: int = 3,  # 1 grey, 3 colour: what the images are stored as
    num_pictures: int = 40,  # pictures of each source on its contact sheet
    to_shards: str | None = None,  # new folder that the one source given is written to as WebDataset shards; read
    # them back with wds/FOLDER/*.tar
    shard_mb: float = 256.0,  # largest shard, in MB of 1e6 bytes
) -> None:
    """Prepare the store and report on it."""
    if not shard_mb > 0:
        raise UserError(f"data.shard_mb must be above 0; found {shard_mb}.")
    options = Data(**config.data)
    if options.clean:
        deleted = clean(Path(options.root).expanduser())
        for folder, size in deleted:
            run.show(f"deleted {folder} ({size / 1e6:.1f} MB)")
        run.show(f"{len(deleted)} stores deleted, {sum(size for _, size in deleted) / 1e6:.1f} MB freed")
        run.write_result("completed", data={"deleted": [str(folder) for folder, _ in deleted]})
        return
    pool = build.open_pool(config, run, channels=channels)
    show(pool, run)
    written = pack(config, run, pool, to_shards, channels, shard_mb) if to_shards and run.is_main else {}
    for number, source in enumerate(pool.sources):
        indices = spread_evenly(pool.indices("train", source=source), num_pictures)
        figure = sheet_figure(pool.gather(indices).permute(0, 2, 3, 1).numpy(), f"{source}, training images")
        figure.savefig(run.figures / f"{number:02d}-{source.replace('/', '-')[:60]}.png", dpi=120)
    run.write_result("completed", data=pool.summary() | written)


def pack(config: RunConfig, run: Run, pool: Pool, folder: str, channels: int, shard_mb: float) -> dict[str, Any]:
    """Write the shards, say what they hold and how they are read; returns what `result.json` says of them."""
    options, tasks = Data(**config.data), {name: Task(**task) for name, task in config.tasks.items()}
    where, settings = Path(folder).expanduser(), Settings(config.image_size, channels, options.fit)
    with DataProgress(run.speaker) as progress:
        shards = write_shards(pool, options, tasks, settings, where, max_bytes=int(shard_mb * 1e6), report=progress)
    samples, size = sum(shard.num_samples for shard in shards), sum(shard.num_bytes for shard in shards)
    run.show(f"{samples:,} images in {len(shards)} shards, {size / 1e6:.1f} MB; read them with 'wds/{where}/*.tar'")
    return {"shards": {shard.path.name: vars(shard) | {"path": str(shard.path)} for shard in shards}}


def show(pool: Pool, run: Run) -> None:
    """Print what the pool holds, as tables."""
    if not run.is_main:
        return
    summary = pool.summary()
    for title, section in (("source", "sources"), ("task", "tasks")):
        if summary[section]:
            table = Table(title, box=SIMPLE_HEAD, pad_edge=False)
            for head in (*SPLITS, *(["classes", "kind"] if section == "tasks" else [])):
                table.add_column(head, justify="right")
            for name, row in summary[section].items():
                table.add_row(name, *(value if isinstance(value, str) else f"{value:,}" for value in row.values()))
            run.show(as_text(table))
    run.show(
        f"{len(pool):,} images, {summary['store_bytes'] / 1e6:.0f} MB decoded; "
        f"exact duplicates {summary['exact_duplicates']}, near duplicates {summary['near_duplicates']}, "
        f"unreadable {summary['unreadable']}"
    )
