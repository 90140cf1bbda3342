"""Sampling weights from verdicts: the selection of damages and images worth learning, in a file for pretraining.

A selection is a Parquet file with a row for each scored image under each damage. Below them, rows without an identity
give each source under each damage; they apply to images of that source that were not scored. A weight scales the
frequency of a damage of an image in a mixture without a selection; 1 leaves it as it is.
"""
# r rows, N images of the pool, D damages of all pretexts

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vision_mtl.core.errors import UserError
from vision_mtl.core.files import atomic_write_bytes
from vision_mtl.core.sums import divide
from vision_mtl.data.pool import Pool
from vision_mtl.discovery.folds import FOLDS
from vision_mtl.discovery.kinds import FLOOR, best_rules
from vision_mtl.discovery.measure import DamageErrors
from vision_mtl.discovery.tables import SkillTables

Rule = Literal["learnable", "top", "soft", "hopeless"]
By = Literal["skill", "progress"]
METADATA = b"vision_mtl"  # the key of the schema's metadata
SEED = 0  # of the random control


@dataclass(frozen=True)
class Selection:
    """`columns` are arrays (r,) by name; `about` records the images, size, pretexts and rule that it was made from."""

    columns: dict[str, np.ndarray]
    about: dict[str, Any]

    @property
    def of_images(self) -> np.ndarray:
        """(r,) bool: True for the row of an image, False for that of a source."""
        return self.columns["index"] >= 0

    def write(self, path: Path) -> None:
        """Write the Parquet file atomically."""
        write_parquet(path, self.columns, self.about)


def write_parquet(path: Path, columns: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> None:
    """Write columns (r,) to a Parquet file atomically, with `about` in its metadata; an empty identity becomes null."""
    arrays = {name: pa.array(values) for name, values in columns.items()}
    arrays["identity"] = pa.array([name or None for name in columns["identity"]], pa.string())
    buffer = io.BytesIO()
    pq.write_table(pa.table(arrays).replace_schema_metadata({METADATA: json.dumps(about).encode()}), buffer)
    atomic_write_bytes(path, buffer.getvalue())


def read_about(path: Path) -> dict[str, Any]:
    """Return a selection's `about` without reading its rows. Raises `UserError` if the file is no selection."""
    try:
        return json.loads(pq.read_schema(path).metadata[METADATA])
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"--selection {str(path)!r} is no selection file: give the selection.parquet of a run of stage discover "
            f"({error})."
        ) from error


def read_selection(path: Path) -> Selection:
    """Return the selection in a Parquet file. Raises `UserError` if the file is no selection."""
    about = read_about(path)
    table = pq.read_table(path)
    columns = {name: table[name].to_numpy(zero_copy_only=False) for name in table.column_names}
    columns["identity"] = np.array([name or "" for name in columns["identity"]], object)
    return Selection(columns, about)


def describe_instances(pool: Pool, errors: Sequence[DamageErrors], tables: SkillTables) -> dict[str, np.ndarray]:
    """Return columns (r,) of a row for each scored image under each damage, with the best rule and kind of its source.

    r is images x damages; an image of several sources is listed with its first.
    """
    parts = [part for own in errors for part in _instances_by_source(pool, own, tables)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def select(
    instances: Mapping[str, np.ndarray], about: Mapping[str, Any], rule: Rule, top_ratio: float = 0.25, by: By = "skill"
) -> Selection:
    """Return a selection with weights by `rule`: 0 or 1 (learnable, hopeless, top), or the skill in [0, 1] (soft).

    `top` selects the share `top_ratio` of all instances with the highest skill, except skills of 0 and below. `by` is
    the measure for `top` and `soft`: `skill`, or `progress`, the skill gained in training. Raises `UserError` for a
    ratio out of range.
    """
    check_ratio(top_ratio)
    weight = instance_weights(instances, rule, top_ratio, by)
    return _with_sources(dict(instances), weight, {**about, "rule": rule, "top_ratio": top_ratio, "by": by})


def check_ratio(top_ratio: float) -> None:
    """Raise `UserError` for a share out of range."""
    if not 0 < top_ratio <= 1:
        raise UserError(f"discover.top_ratio must lie in (0, 1]; found {top_ratio}.")


def controls(chosen: Selection) -> dict[str, Selection]:
    """Return the control selections: the hopeless instances, and random instances with the same weights."""
    rows = chosen.of_images
    instances = {name: values[rows] for name, values in chosen.columns.items() if name != "weight"}
    shuffled = np.random.default_rng(SEED).permutation(chosen.columns["weight"][rows])
    weights = {"hopeless": instance_weights(instances, "hopeless"), "random": shuffled}
    return {n: _with_sources(instances, weight, {**chosen.about, "rule": n}) for n, weight in weights.items()}


def instance_weights(
    instances: Mapping[str, np.ndarray], rule: Rule, top_ratio: float = 0.25, by: By = "skill"
) -> np.ndarray:
    """(r,) float32 weights in [0, 1]; 0 for an instance that is trivial on its own (a white corner)."""
    kind = instances["kind"]
    if rule in ("learnable", "hopeless"):
        return (kind == rule).astype(np.float32)
    reference = instances["error_reference"]
    start = reference if by == "skill" else instances["error_untrained"]
    worth = np.where(kind == "trivial", -np.inf, divide(start - instances["error_model"], reference))
    worth = np.nan_to_num(worth, nan=-np.inf)
    if rule == "soft":
        return np.clip(worth, 0, 1).astype(np.float32)
    count = math.ceil(top_ratio * len(worth))
    chosen = np.zeros(len(worth), np.float32)
    chosen[np.argsort(-worth, kind="stable")[:count]] = 1
    return np.where(worth > 0, chosen, 0).astype(np.float32)


def _with_sources(instances: dict[str, np.ndarray], weight: np.ndarray, about: dict[str, Any]) -> Selection:
    """The selection of the instances' rows and, below them, each source's means under each damage."""
    keys = np.stack([instances[name].astype(str) for name in ("source", "pretext", "damage")], 1)
    _, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    group = group.ravel()
    count = np.bincount(group)
    below = {name: values[first] for name, values in instances.items()}
    below["identity"], below["index"] = np.full(len(first), "", object), np.full(len(first), -1)
    for name in ("error_model", "error_untrained", "error_reference"):
        below[name] = np.bincount(group, instances[name]) / count
    below["skill"] = 1 - divide(below["error_model"], below["error_reference"])
    below["kind"] = below["kind_of_damage"]
    means = (np.bincount(group, weight) / count).astype(np.float32)
    columns = {name: np.concatenate([values, below[name]]) for name, values in instances.items()}
    return Selection({**columns, "weight": np.concatenate([weight, means])}, about)


def _instances_by_source(pool: Pool, errors: DamageErrors, tables: SkillTables) -> list[dict[str, np.ndarray]]:
    found, (best, references) = [], best_rules(errors)
    for source in [source for source in pool.sources if source in best]:
        rows, names, reference = errors.source == source, best[source], references[errors.source == source]
        verdicts = {v.damage: v.kind for v in tables.damages["source", source] if v.pretext == errors.pretext}
        count, size = int(rows.sum()), len(errors.damages)
        kinds = np.array([verdicts[name] for name in errors.damages], object)
        of_damage = np.tile(kinds, count)
        flat = {"error_model": errors.model[rows], "error_untrained": errors.untrained[rows]}
        own = {name: values.ravel() for name, values in (flat | {"error_reference": reference}).items()}
        index = np.repeat(errors.index[rows], size)
        found.append(
            {
                "source": np.full(count * size, source, object),
                "identity": np.array([pool.identities[i] for i in index], object),
                "index": index,
                "fold": np.array(FOLDS, object)[np.repeat(errors.fold[rows], size)],
                "pretext": np.full(count * size, errors.pretext, object),
                "damage": np.tile(np.array(errors.damages, object), count),
                **own,
                "reference": np.tile(np.array(names, object), count),
                "skill": 1 - divide(own["error_model"], own["error_reference"]),
                "kind": np.where(own["error_reference"] < FLOOR, "trivial", of_damage).astype(object),
                "kind_of_damage": of_damage,
            }
        )
    return found
