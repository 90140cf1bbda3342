"""Outputs of a discovery: tables, the selection with its controls, and figures."""
# n scored images, r c rows and columns of a grid

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vision_mtl.config.run_config import RunConfig
from vision_mtl.core.files import atomic_write_text
from vision_mtl.core.run import Run
from vision_mtl.core.sums import divide
from vision_mtl.data.options import Task
from vision_mtl.data.pool import Pool
from vision_mtl.discovery.folds import first_source
from vision_mtl.discovery.kinds import Verdict, best_rules
from vision_mtl.discovery.measure import DamageErrors, ScoredNetwork
from vision_mtl.discovery.selection import Selection, write_parquet
from vision_mtl.discovery.tables import Group, SkillTables
from vision_mtl.evaluation.classes import csv_text
from vision_mtl.evaluation.features import spread_evenly
from vision_mtl.pretext.contract import Pretext
from vision_mtl.recipes.extremes import extremes_figure
from vision_mtl.recipes.repair_scores import names_of_sources
from vision_mtl.viz.discovery import learning_curves_figure, scales_figure
from vision_mtl.viz.skill_maps import SkillMap, skill_maps_figure
from vision_mtl.viz.style import save_chart, save_pictures

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL = re.compile(r"(\d+)x(\d+)/r(\d+)c(\d+)")  # a damage that is one cell of a grid
NUM_PICTURES = 5  # single images with a map each
SHOWN_ERROR = 1e-3  # mean squared error (8 grey levels) below which a single cell has no meaningful skill


def describe_selection(config: RunConfig, pool: Pool, pretexts: Mapping[str, Pretext]) -> dict[str, Any]:
    """Return a selection's metadata: image size (H, W, C), sources, and the pretexts' options."""
    return {
        "image_size": [pool.shape[1], pool.shape[2], pool.shape[0]],
        "sources": pool.sources,
        "pretexts": {name: config.section("pretexts")[name] for name in pretexts},
    }


def write_files(
    run: Run, tables: SkillTables, instances: Mapping[str, np.ndarray], selections: Mapping[str, Selection]
) -> None:
    """Write `tables/damages.csv`, `instances.parquet`, `selection.parquet` and its controls, `selection-NAME.parquet`.

    `instances` maps a column to values (r,), as `describe_instances` returns them.
    """
    if not run.is_main:
        return
    atomic_write_text(run.folder / "tables" / "damages.csv", csv_text(tables.rows()))
    about = selections["selection"].about
    write_parquet(run.folder / "instances.parquet", instances, about)
    for name, selection in selections.items():
        selection.write(run.folder / (f"{name}.parquet" if name == "selection" else f"selection-{name}.parquet"))


def write_figures(
    run: Run,
    networks: Sequence[ScoredNetwork],
    errors: Sequence[DamageErrors],
    tables: SkillTables,
    curve: Sequence[Mapping[str, Any]],
    tasks: Mapping[str, Task],
) -> None:
    """Draw skill maps over mean and single images, skill by scale and over training, best and worst repairs."""
    if not run.is_main:
        return
    pool = networks[0].pool
    names = {"all": "all images", **names_of_sources(pool.sources, tasks)}
    figures = {
        "scales": scales_figure(_by_pretext(tables, names)),
        "training": learning_curves_figure(curve),
    }
    for own in errors:
        cells = [cell for name in own.damages if (cell := CELL.fullmatch(name))]
        if len(cells) == len(own.damages):
            figures[f"maps-{own.pretext}"] = _mean_maps(pool, own, tables, cells, names)
            figures[f"maps-{own.pretext}-images"] = _image_maps(pool, own, cells, names)
    for name, figure in figures.items():
        save_chart(figure, run.figures, name)
    save_pictures(extremes_figure(networks, errors), run.figures, "repairs")


def _by_pretext(tables: SkillTables, names: Mapping[str, str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return pretext -> source -> scale -> score; with several sources, for all images together too."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for group in _groups(tables):
        for verdict in tables.scales.get(group, []):
            own = found.setdefault(verdict.pretext, {}).setdefault(names[group[1]], {})
            own[verdict.damage] = verdict.skill.to_json()
    return found


def _groups(tables: SkillTables) -> list[Group]:
    sources = [group for group in tables.damages if group[0] == "source"]
    return sources if len(sources) == 1 else [("all", "all"), *sources]


def _mean_maps(
    pool: Pool, errors: DamageErrors, tables: SkillTables, cells: Sequence[re.Match[str]], names: Mapping[str, str]
) -> Figure | None:
    """Draw skill and kind of every cell over the mean image, of all sources and of each."""
    maps = []
    for group in _groups(tables):
        verdicts = [v for v in tables.damages[group] if v.pretext == errors.pretext]
        rows = errors.index
        if group[0] == "source":
            rows = rows[pool.member[rows, pool.sources.index(group[1])]]
        if verdicts:
            picture = pool.gather(torch.from_numpy(rows)).mean(0).permute(1, 2, 0).numpy()
            skills = np.array([np.nan if v.trivial else v.skill.value for v in verdicts])
            maps.append(SkillMap(names[group[1]], picture, _as_grids(skills, cells), _kinds(verdicts, cells)))
    return skill_maps_figure(maps, f"{errors.pretext}: skill of each hidden cell, over the mean image")


def _kinds(verdicts: Sequence[Verdict], cells: Sequence[re.Match[str]]) -> list[np.ndarray]:
    return _as_grids(np.array([verdict.kind for verdict in verdicts], object), cells)


def _image_maps(
    pool: Pool, errors: DamageErrors, cells: Sequence[re.Match[str]], names: Mapping[str, str]
) -> Figure | None:
    """Draw the skill of every cell of a few single images, compared with the best rules for the image's source."""
    source, references = first_source(pool, errors.index), best_rules(errors)[1]
    chosen = []
    for column in range(len(pool.sources)):
        rows = torch.from_numpy(np.flatnonzero(source == column))
        chosen.append(spread_evenly(rows, max(1, NUM_PICTURES // len(pool.sources))).tolist())
    maps = []
    for row in [row for rows in chosen for row in rows][: max(NUM_PICTURES, len(pool.sources))]:
        reference = np.where(references[row] < SHOWN_ERROR, np.nan, references[row])
        skill = 1 - divide(errors.model[row], reference)
        picture = pool.gather(torch.tensor([errors.index[row]]))[0].permute(1, 2, 0).numpy()
        grids = _as_grids(skill, cells)
        maps.append(SkillMap(names[pool.sources[source[row]]], picture, grids, [None] * len(grids)))
    return skill_maps_figure(
        maps, f"{errors.pretext}: skill of each hidden cell of single images; no colour: nothing to repair"
    )


def _as_grids(values: np.ndarray, cells: Sequence[re.Match[str]]) -> list[np.ndarray]:
    """Return an array (r, c) for each grid, from one value per cell (D,)."""
    found: dict[tuple[int, int], np.ndarray] = {}
    for value, cell in zip(values, cells, strict=True):
        rows, columns, r, c = map(int, cell.groups())
        found.setdefault((rows, columns), np.empty((rows, columns), values.dtype))[r, c] = value
    return list(found.values())
