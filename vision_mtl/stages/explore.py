"""A local page: damage an image by hand, see it repaired, hear every head, find its nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vision_mtl.config.run_config import RunConfig
from vision_mtl.config.stage import STAGES, Stage
from vision_mtl.core.errors import UserError, unknown
from vision_mtl.core.run import Run


@STAGES.register("explore")
@dataclass(frozen=True, kw_only=True)
class Explore(Stage):
    """Restore the network, gather examples and neighbours where the run's data are there, serve until interrupted."""

    sections: ClassVar = ("data", "tasks", "runtime")
    inherits_images: ClassVar = True
    writes_run: ClassVar = False

    port: int = 0
    """Of 127.0.0.1, where the page is; 0: any free one."""
    split: str = "test"
    """Which images of the run are offered as examples: train, val or test."""
    num_examples: int = 24
    """Images offered, an equal share of each source."""
    num_neighbours: int = 6
    """Nearest training images shown for each picture."""
    max_indexed: int = 1000
    """Training images that neighbours are looked for among, at even steps."""
    repair_with: str | None = None
    """Run or checkpoint whose heads repair; default: the run's own (a fine-tuned run has none)."""

    def run(self, config: RunConfig, run: Run) -> None:
        from vision_mtl.data.source import SPLITS
        from vision_mtl.explorer.server import Server
        from vision_mtl.explorer.site import open_site

        for name, value, least in (("num_examples", self.num_examples, 0), ("num_neighbours", self.num_neighbours, 1)):
            if value < least:
                raise UserError(f"explore.{name} must be {least} or more; found {value}.")
        if self.split not in SPLITS:
            raise unknown("split", self.split, SPLITS)
        site = open_site(
            config, run, self.split, self.num_examples, self.num_neighbours, self.max_indexed, self.repair_with
        )
        with Server(site, self.port) as server:
            run.show(f"open {server.url} in a browser on this machine; Ctrl-C ends it")
            server.serve_forever()
