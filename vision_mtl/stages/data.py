"""Decode, check and count the images of a config; tell what is wrong; write shards, or delete the stores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vision_mtl.config.run_config import RunConfig, Stage
from vision_mtl.config.stage import AFTER_DATA, STAGES
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run
from vision_mtl.core.text import file_stem


@STAGES.register("data")
@dataclass(frozen=True, kw_only=True)
class PrepareData(Stage):
    """Check all images and labels and print one page about them: errors, warnings, notes, and what to do about each.

    The page also counts the images of each source and task. The decoded images stay in the store for later runs. A
    contact sheet of each source is drawn. With `data.clean`, the stores are deleted instead.
    """

    sections: ClassVar = ("data", "tasks")
    results: ClassVar = (
        ("findings.json", "what is wrong or noteworthy"),
        ("figures", "a contact sheet of each source"),
    )
    next_commands: ClassVar = AFTER_DATA

    channels: int = 3
    """Channels of the stored images, any number. 1: grey; 3: colour; otherwise the bands of the files."""
    num_pictures: int = 40
    """Pictures of each source on its contact sheet."""
    to_shards: str | None = None
    """New folder for WebDataset shards of the one given source; read them back with wds/FOLDER/*.tar. null: none."""
    shard_mb: float = 256.0
    """Size limit of a shard, in MB (1e6 bytes), above 0."""

    def run(self, config: RunConfig, run: Run) -> None:
        from vision_mtl.data.findings import Findings
        from vision_mtl.data.store import clean
        from vision_mtl.evaluation.features import spread_evenly
        from vision_mtl.recipes import build
        from vision_mtl.recipes.data_summary import export_shards, print_summary, show_findings
        from vision_mtl.training.progress import phase
        from vision_mtl.viz.bands import shown_bands
        from vision_mtl.viz.sheets import sheet_figure

        if not self.shard_mb > 0:
            raise UserError(f"data.shard_mb must be above 0; found {self.shard_mb}.")
        if config.data.clean:
            deleted = clean(Path(config.data.root).expanduser())
            for folder, size in deleted:
                run.show(f"deleted {folder} ({size / 1e6:.1f} MB)")
            run.show(f"{len(deleted)} stores deleted, {sum(size for _, size in deleted) / 1e6:.1f} MB freed")
            run.write_result("completed", data={"deleted": [str(folder) for folder, _ in deleted]})
            return

        findings, pool = Findings(keep_going=True), None
        with findings.catching():
            pool = build.decode_pool(config, run, self.channels, findings)
        show_findings(findings, run)
        if pool is not None:
            print_summary(pool, run)
        findings.raise_errors(even_if_kept=True)
        if pool is None:
            raise ValueError("a pool that cannot be built has an error")
        data = pool.summary()
        if self.to_shards and run.is_main:
            data |= export_shards(config, run, pool, self.to_shards, self.channels, self.shard_mb)
        with phase(run.speaker, "drawing contact sheets") as show:
            for number, source in enumerate(pool.sources):
                show(number / len(pool.sources), source)
                indices = spread_evenly(pool.indices("train", source=source), self.num_pictures)
                pictures = shown_bands(pool.gather(indices).permute(0, 2, 3, 1).numpy(), pool.rgb_bands)
                figure = sheet_figure(pictures, f"{source}, training images")
                figure.savefig(run.figures / f"{number:02d}-{file_stem(source.replace('/', '-')[:60])}.png", dpi=120)
        run.write_result("completed", data=data)
