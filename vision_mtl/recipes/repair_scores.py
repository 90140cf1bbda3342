"""What a network learned to repair, scored as the config says, with progress shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from vision_mtl.config.run_config import RunConfig
from vision_mtl.core.run import Run
from vision_mtl.core.text import short_sources
from vision_mtl.data.options import Task
from vision_mtl.data.pool import Pool
from vision_mtl.discovery.measure import Autocast
from vision_mtl.discovery.score import score_pretexts
from vision_mtl.inference.pictures import NOUNS
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.mixture import Mixture
from vision_mtl.training.progress import phase
from vision_mtl.viz.curves import skill_figure
from vision_mtl.viz.style import save_chart


def score_repairs(
    config: RunConfig,
    run: Run,
    model: SharedModel,
    pool: Pool,
    mixture: Mixture,
    autocast: Autocast,
    start: SharedModel | None,
    split: str = "test",
) -> dict[str, Any]:
    """Return the skills of `score_pretexts` on `score.images` images; nothing in processes that do not write."""
    if not run.is_main:
        return {}
    cache = Path(config.data.root).expanduser() / "store"
    with phase(run.speaker, "scoring what was learned") as show:
        return score_pretexts(
            model, pool, mixture, autocast, split, start, num_images=config.score.images, cache=cache, show=show
        )


def write_skill_figure(run: Run, metrics: Mapping[str, Any], tasks: Mapping[str, Task], split: str = "test") -> None:
    """Draw what training added by source."""
    learned = metrics.get("skill_learned_by_source", {})
    names, images = names_of_sources(learned, tasks), NOUNS[split]
    save_chart(skill_figure(learned, metrics.get("skill_by_source"), names, images), run.figures, "skill")


def names_of_sources(sources: Iterable[str], tasks: Mapping[str, Task]) -> dict[str, str]:
    """Return the names that figures show for sources."""
    return short_sources(sources, {name: task.source for name, task in tasks.items()})
