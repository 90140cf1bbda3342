"""The data of a config: decode, verify, count and show it; or, with --data.clean, delete the decoded stores."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

from vision_mtl.core.run import Run
from vision_mtl.data.options import Data
from vision_mtl.data.pool import Pool
from vision_mtl.data.source import SPLITS
from vision_mtl.data.store import clean
from vision_mtl.evaluation.features import spread_evenly
from vision_mtl.stages import build
from vision_mtl.stages.config import RunConfig
from vision_mtl.stages.registry import STAGES
from vision_mtl.viz.sheets import sheet_figure

SECTIONS = ("data", "tasks")


@STAGES.register("data")
def data(
    config: RunConfig,
    run: Run,
    *,
    channels: int = 3,  # 1 grey, 3 colour: what the images are stored as
    num_pictures: int = 40,  # pictures of each source on its contact sheet
) -> None:
    """Prepare the store and report on it."""
    options = Data(**config.data)
    if options.clean:
        deleted = clean(Path(options.root).expanduser())
        for folder, size in deleted:
            run.say(f"deleted {folder} ({size / 1e6:.1f} MB)")
        run.say(f"{len(deleted)} stores deleted, {sum(size for _, size in deleted) / 1e6:.1f} MB freed")
        run.write_result("completed", data={"deleted": [str(folder) for folder, _ in deleted]})
        return
    pool = build.open_pool(config, run, channels=channels)
    show(pool, run)
    for number, source in enumerate(pool.sources):
        indices = spread_evenly(pool.indices("train", source=source), num_pictures)
        figure = sheet_figure(pool.gather(indices).permute(0, 2, 3, 1).numpy(), f"{source}, training images")
        figure.savefig(run.figures / f"{number:02d}-{source.replace('/', '-')[:60]}.png", dpi=120)
    run.write_result("completed", data=pool.summary())


def show(pool: Pool, run: Run) -> None:
    """Print what the pool holds, as tables."""
    if not run.is_main:
        return
    summary = pool.summary()
    for title, section in (("source", "sources"), ("task", "tasks")):
        if summary[section]:
            table = Table(title, *SPLITS, *(["classes", "kind"] if section == "tasks" else []))
            for name, row in summary[section].items():
                table.add_row(name, *(value if isinstance(value, str) else f"{value:,}" for value in row.values()))
            Console(markup=False, emoji=False).print(table)  # names are shown as they are
    run.say(
        f"{len(pool):,} images, {summary['store_bytes'] / 1e6:.0f} MB decoded; "
        f"exact duplicates {summary['exact_duplicates']}, near duplicates {summary['near_duplicates']}, "
        f"unreadable {summary['unreadable']}"
    )
