"""The file of a run's scored test images, with the prediction and its score for each.

Runs are compared on paired images (`comparisons.py`), so each run with labels keeps these rows; they also tell which
images are predicted wrongly.
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
    """One method's predictions of one task for the pool's images `indices` (n,), learned from `fraction` of the labels.

    `value` (n,) scores each prediction (`predictions.instance_values`); their mean is the score. `true` and `said` (n,)
    are the true and predicted classes of a single-label task, None for other kinds.
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
        """Return the rows of one task, method and requested label fraction, sorted by identity."""
        rows = (self.columns["task"] == task) & (self.columns["method"] == method)
        rows &= np.isclose(self.columns["fraction"], fraction)
        order = np.argsort(self.columns["identity"][rows], kind="stable")
        return InstanceTable({name: values[rows][order] for name, values in self.columns.items()})

    def __len__(self) -> int:
        return len(self.columns["value"])


def write_instances(folder: Path, pool: Pool, scores: Sequence[InstanceScores]) -> None:
    """Write `test_instances.parquet` to the run's folder atomically; without scores, write nothing."""
    tables = [_columns(pool, one) for one in scores]
    if not tables:
        return
    columns = {name: np.concatenate([table[name] for table in tables]) for name in COLUMNS}
    arrays = {n: pa.array(v, pa.string()) if n in TEXT else pa.array(v) for n, v in columns.items()}
    buffer = io.BytesIO()
    pq.write_table(pa.table(arrays), buffer)
    atomic_write_bytes(folder / FILE, buffer.getvalue())


def read_instances(folder: Path) -> InstanceTable:
    """Return the scored images of a run. Raises `UserError` if the file is missing or cannot be read."""
    try:
        table = pq.read_table(folder / FILE)
        return InstanceTable({name: table[name].to_numpy(zero_copy_only=False) for name in COLUMNS})
    except (OSError, pa.ArrowException, KeyError) as error:
        raise UserError(
            f"{str(folder / FILE)!r} cannot be read ({error}): delete its folder to run it again."
        ) from error


def _columns(pool: Pool, scores: InstanceScores) -> dict[str, np.ndarray]:
    """The columns (n,) of one method and task."""
    count, classes = len(scores.indices), pool.class_names.get(scores.task, [])
    class_columns = {
        name: np.full(count, None, object) if values is None else np.array([classes[k] for k in values], object)
        for name, values in (("true", scores.true), ("said", scores.said))
    }
    return {
        "task": np.full(count, scores.task, object),
        "method": np.full(count, scores.method, object),
        "fraction": np.full(count, scores.fraction, np.float64),
        "identity": np.array([pool.identities[i] for i in scores.indices.tolist()], object),
        "cluster": pool.cluster[scores.indices].astype(np.int64),
        "value": scores.value.astype(np.float64),
        **class_columns,
    }
