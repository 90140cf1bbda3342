"""Decode, check and count the images of a config; tell what is wrong; write shards, or delete the stores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vision_mtl.config.run_config import RunConfig, Stage
from vision_mtl.config.stage import AFTER_DATA, STAGES
from vision_mtl.core.errors import UserError
from vision_mtl.core.run import Run


@STAGES.register("data")
@dataclass(frozen=True, kw_only=True)
class PrepareData(Stage):
    """Check all images and labels and print one page about them: errors, warnings, notes, and what to do about each.

    The page also counts the images of each source, task and class, and tells their original sizes, the copies among
    them, and what is held out. A contact sheet shows a few of each class. The decoded images stay in the store for
    later runs. With `data.clean`, the stores are deleted instead.
    """

    sections: ClassVar = ("data", "tasks")
    results: ClassVar = (
        ("findings.json", "what is wrong or noteworthy"),
        ("figures/contact_sheet.png", "a few training images of each class and source"),
    )
    next_commands: ClassVar = AFTER_DATA

    channels: int = 3
    """Channels of the stored images, any number. 1: grey; 3: colour; otherwise the bands of the files."""
    num_pictures: int = 40
    """Pictures of each task, and of each source without one, on the contact sheet. 0: no sheet."""
    to_shards: str | None = None
    """New folder for WebDataset shards of the one given source; read them back with wds/FOLDER/*.tar. null: none."""
    shard_mb: float = 256.0
    """Size limit of a shard, in MB (1e6 bytes), above 0."""

    def run(self, config: RunConfig, run: Run) -> None:
        from vision_mtl.data.findings import Findings
        from vision_mtl.data.store import clean
        from vision_mtl.recipes import build
        from vision_mtl.recipes.contact_sheet import contact_sheet
        from vision_mtl.recipes.data_facts import data_facts, task_sources, tell_few_validation_images
        from vision_mtl.recipes.data_summary import export_shards, print_summary, show_findings
        from vision_mtl.training.progress import phase

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
        if pool is not None:
            tell_few_validation_images(pool, findings)
        show_findings(findings, run)
        facts = None if pool is None else data_facts(config, run, pool)
        if facts is not None:
            print_summary(facts, run)
        findings.raise_errors(even_if_kept=True)
        if pool is None or facts is None:
            raise ValueError("a pool that cannot be built has an error")
        if self.to_shards and run.is_main:
            facts |= export_shards(config, run, pool, self.to_shards, self.channels, self.shard_mb)
        if run.is_main and self.num_pictures > 0:
            with phase(run.speaker, "drawing the contact sheet"):
                sheet = contact_sheet(pool, task_sources(config), self.num_pictures)
                sheet.savefig(run.figures / "contact_sheet.png")
        run.write_result("completed", data=facts)
