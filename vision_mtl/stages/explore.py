"""Serve a local page: damage an image by hand, see its repair, every head's prediction and its nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vision_mtl.config.run_config import RunConfig, Stage
from vision_mtl.config.stage import STAGES
from vision_mtl.core.errors import UserError, unknown
from vision_mtl.core.run import Run


@STAGES.register("explore")
@dataclass(frozen=True, kw_only=True)
class Explore(Stage):
    """Restore the run's model, collect examples and neighbours if its data are available, serve until interrupted."""

    sections: ClassVar = ("data", "tasks", "runtime")
    inherits_images: ClassVar = True
    writes_run: ClassVar = False

    port: int = 0
    """Port of the page on 127.0.0.1. 0: any free port."""
    split: str = "test"
    """Split that the examples are from: train, val or test."""
    num_examples: int = 24
    """Example images on the page, divided equally among sources; 0 or more."""
    num_neighbours: int = 6
    """Nearest training images to show for each picture; 1 or more."""
    max_indexed: int = 1000
    """Maximum number of training images to search for neighbours, evenly spaced."""
    repair_with: str | None = None
    """Run or checkpoint whose heads repair. null: the explored run (a fine-tuned run has no such heads)."""

    def run(self, config: RunConfig, run: Run) -> None:
        from vision_mtl.data.source import SPLITS
        from vision_mtl.explorer.server import Server
        from vision_mtl.explorer.site import open_site

        for name, value, minimum in (
            ("num_examples", self.num_examples, 0),
            ("num_neighbours", self.num_neighbours, 1),
        ):
            if value < minimum:
                raise UserError(f"explore.{name} must be {minimum} or more; found {value}.")
        if self.split not in SPLITS:
            raise unknown("split", self.split, SPLITS)
        site = open_site(
            config, run, self.split, self.num_examples, self.num_neighbours, self.max_indexed, self.repair_with
        )
        with Server(site, self.port) as server:
            run.show(f"open {server.url} in a browser on this machine; Ctrl-C ends it")
            server.serve_forever()
