"""What a discovery leaves behind: tables, the selection with its controls, and figures."""
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
from vision_mtl.viz.discovery import course_figure, scales_figure
from vision_mtl.viz.skill_maps import SkillMap, skill_maps_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CELL = re.compile(r"(\d+)x(\d+)/r(\d+)c(\d+)")  # a damage that is one cell of a grid
NUM_PICTURES = 6  # single images with maps of their own
SHOWN_ERROR = 1e-3  # mean squared error (8 grey levels) below which a single cell's skill says nothing


def about_selection(config: RunConfig, pool: Pool, pretexts: Mapping[str, Pretext]) -> dict[str, Any]:
    """What a selection says of the images and the damage that it was made of."""
    return {
        "image_size": [pool.shape[1], pool.shape[2], pool.shape[0]],
        "sources": pool.sources,
        "pretexts": {name: config.section("pretexts")[name] for name in pretexts},
    }


def write_files(
    run: Run, tables: SkillTables, instances: Mapping[str, np.ndarray], selections: Mapping[str, Selection]
) -> None:
    """`tables/damages.csv`, `instances.parquet`, `selection.parquet` and `selection-NAME.parquet` for its controls.

    `instances`: column -> (r,), as `describe_instances` gives them.
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
    course: Sequence[Mapping[str, Any]],
) -> None:
    """Maps over mean images and over single ones, skill by scale and over training, best and worst repairs."""
    if not run.is_main:
        return
    pool = networks[0].pool
    figures: dict[str, Figure | None] = {
        "scales": scales_figure(_by_pretext(tables)),
        "training": course_figure(course),
        "repairs": extremes_figure(networks, errors),
    }
    for own in errors:
        cells = [CELL.fullmatch(name) for name in own.damages]
        if all(cells):
            figures[f"maps-{own.pretext}"] = _mean_maps(pool, own, tables, cells)
            figures[f"maps-{own.pretext}-images"] = _image_maps(pool, own, cells)
    for name, figure in figures.items():
        if figure is not None:
            figure.savefig(run.figures / f"{name}.png", dpi=150)


def _by_pretext(tables: SkillTables) -> dict[str, dict[str, dict[str, Any]]]:
    """pretext -> images -> scale -> score, for all images where there is more than one source, and for each source."""
    wanted = _sources(tables)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for group in wanted:
        for verdict in tables.scales.get(group, []):
            own = found.setdefault(verdict.pretext, {}).setdefault(_short(_label(group)), {})
            own[verdict.damage] = verdict.skill.to_json()
    return found


def _sources(tables: SkillTables) -> list[Group]:
    sources = [group for group in tables.damages if group[0] == "source"]
    return sources if len(sources) == 1 else [("all", "all"), *sources]


def _label(group: Group) -> str:
    return "all images" if group[0] == "all" else group[1]


def _mean_maps(pool: Pool, errors: DamageErrors, tables: SkillTables, cells: Sequence[re.Match[str]]) -> Figure | None:
    """Skill and kind of every cell over the mean of the scored images: all, and each source's."""
    maps = []
    for group in _sources(tables):
        verdicts = [v for v in tables.damages[group] if v.pretext == errors.pretext]
        rows = errors.index
        if group[0] == "source":
            rows = rows[pool.member[rows, pool.sources.index(group[1])]]
        if verdicts:
            picture = pool.gather(torch.from_numpy(rows)).mean(0).permute(1, 2, 0).numpy()
            skills = np.array([np.nan if v.trivial else v.skill.value for v in verdicts])
            maps.append(SkillMap(_wrapped(_label(group)), picture, _laid(skills, cells), _kinds(verdicts, cells)))
    return skill_maps_figure(maps, f"{errors.pretext}: skill of each hidden cell, over the mean image")


def _kinds(verdicts: Sequence[Verdict], cells: Sequence[re.Match[str]]) -> list[np.ndarray]:
    return _laid(np.array([verdict.kind for verdict in verdicts], object), cells)


def _image_maps(pool: Pool, errors: DamageErrors, cells: Sequence[re.Match[str]]) -> Figure | None:
    """Skill of every cell of a few single images, sources in turn, each against the rules best for its source."""
    source = first_source(pool, errors.index)
    chosen = []
    for column in range(len(pool.sources)):
        rows = torch.from_numpy(np.flatnonzero(source == column))
        chosen.append(spread_evenly(rows, max(1, NUM_PICTURES // len(pool.sources))).tolist())
    maps = []
    for row in [row for rows in chosen for row in rows][: max(NUM_PICTURES, len(pool.sources))]:
        reference = best_rules(errors, source == source[row])[1][(np.flatnonzero(source == source[row]) == row)][0]
        skill = 1 - divide(errors.model[row], np.where(reference < SHOWN_ERROR, np.nan, reference))
        picture = pool.gather(torch.tensor([errors.index[row]]))[0].permute(1, 2, 0).numpy()
        laid = _laid(skill, cells)
        maps.append(SkillMap(_wrapped(pool.sources[source[row]]), picture, laid, [None] * len(laid)))
    return skill_maps_figure(maps, f"{errors.pretext}: skill of each hidden cell of single images")


def _laid(values: np.ndarray, cells: Sequence[re.Match[str]]) -> list[np.ndarray]:
    """One value a cell (D,) -> a (r, c) array for each grid."""
    found: dict[tuple[int, int], np.ndarray] = {}
    for value, cell in zip(values, cells, strict=True):
        rows, columns, r, c = map(int, cell.groups())
        found.setdefault((rows, columns), np.empty((rows, columns), values.dtype))[r, c] = value
    return list(found.values())


def _short(name: str) -> str:
    """A source's name without the folders in the middle of its path."""
    kind, *rest = [part for part in name.split("/") if part]
    return "/".join([kind, *(["…"] if len(rest) > 2 else []), *rest[-2:]])


def _wrapped(name: str) -> str:
    """A source's name over several lines, broken at its slashes."""
    return _short(name).replace("/", "/\n").replace("/\n…", "/…")
