"""The judged test images of a run, one by one, in a file: what was said of each, and how good that is.

Means over images are compared between runs by pairing the images (`comparisons.py`), so each run with labels keeps
these rows; they also answer "which images does it get wrong?".
"""
# r rows, n images of one task

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vision_mtl.core.errors import UserError
from vision_mtl.core.files import atomic_write_bytes
from vision_mtl.data.pool import Pool

FILE = "test_instances.parquet"
TEXT = ("task", "method", "identity", "true", "said")
COLUMNS = (*TEXT, "fraction", "cluster", "value")


@dataclass(frozen=True)
class InstanceScores:
    """One method's answers of one task for the pool's images `indices` (n,), learnt from `fraction` of the labels.

    `value` (n,) is how good each is, and their mean the score (`predictions.instance_values`). `true` and `said` (n,)
    are classes of a single-label task, None of all others.
    """

    task: str
    method: str
    fraction: float
    indices: np.ndarray
    value: np.ndarray
    true: np.ndarray | None = None
    said: np.ndarray | None = None


@dataclass(frozen=True)
class InstanceTable:
    """The rows of a file: arrays (r,) by column name."""

    columns: dict[str, np.ndarray]

    def of(self, task: str, method: str, fraction: float) -> InstanceTable:
        """The rows of one task, method and requested fraction of labels, by identity."""
        rows = (self.columns["task"] == task) & (self.columns["method"] == method)
        rows &= np.isclose(self.columns["fraction"], fraction)
        order = np.argsort(self.columns["identity"][rows], kind="stable")
        return InstanceTable({name: values[rows][order] for name, values in self.columns.items()})

    def __len__(self) -> int:
        return len(self.columns["value"])


def write_instances(folder: Path, pool: Pool, judged: Sequence[InstanceScores]) -> None:
    """Write `test_instances.parquet` in the run's folder, whole or not at all."""
    parts = [_rows(pool, one) for one in judged]
    if not parts:
        return
    columns = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
    arrays = {n: pa.array(v, pa.string()) if n in TEXT else pa.array(v) for n, v in columns.items()}
    buffer = io.BytesIO()
    pq.write_table(pa.table(arrays), buffer)
    atomic_write_bytes(folder / FILE, buffer.getvalue())


def read_instances(folder: Path) -> InstanceTable:
    """The judged images of a run. Raises `UserError` if it kept none that can be read."""
    try:
        table = pq.read_table(folder / FILE)
        return InstanceTable({name: table[name].to_numpy(zero_copy_only=False) for name in COLUMNS})
    except (OSError, pa.ArrowException, KeyError) as error:
        raise UserError(
            f"{str(folder / FILE)!r} cannot be read ({error}): delete its folder to run it again."
        ) from error


def _rows(pool: Pool, judged: InstanceScores) -> dict[str, np.ndarray]:
    count, classes = len(judged.indices), pool.class_names.get(judged.task, [])
    named = {
        name: np.full(count, None, object) if values is None else np.array([classes[k] for k in values], object)
        for name, values in (("true", judged.true), ("said", judged.said))
    }
    return {
        "task": np.full(count, judged.task, object),
        "method": np.full(count, judged.method, object),
        "fraction": np.full(count, judged.fraction, np.float64),
        "identity": np.array([pool.identities[i] for i in judged.indices.tolist()], object),
        "cluster": pool.cluster[judged.indices].astype(np.int64),
        "value": judged.value.astype(np.float64),
        **named,
    }
