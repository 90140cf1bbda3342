"""The confusion matrix, and for each class its precision, its recall and its most frequent mistake."""
# n instances, K classes

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vision_mtl.core.csv_escape import escape_cell


def confusion_matrix(pred: np.ndarray, true: np.ndarray, num_classes: int) -> np.ndarray:
    """(K, K) int64 counts of (n,) classes: rows true, columns predicted."""
    return np.bincount(true * num_classes + pred, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_rows(confusion: np.ndarray, class_names: Sequence[str]) -> list[dict[str, Any]]:
    """(K, K) counts -> one row per class: `n` true instances, precision and recall (None where undefined), mistakes.

    `most_confused_with` is the most frequent wrong prediction for the class, `times` its count; both are None without
    a mistake.
    """
    rows = []
    for k, name in enumerate(class_names):
        hits, actual, predicted = int(confusion[k, k]), int(confusion[k].sum()), int(confusion[:, k].sum())
        mistakes = confusion[k].copy()
        mistakes[k] = 0
        worst = int(mistakes.argmax())
        times = int(mistakes[worst])
        rows.append(
            {
                "class": name,
                "precision": hits / predicted if predicted else None,
                "recall": hits / actual if actual else None,
                "n": actual,
                "most_confused_with": class_names[worst] if times else None,
                "times": times or None,
            }
        )
    return rows


def csv_text(rows: Sequence[Mapping[str, Any]], digits: int | None = 6) -> str:
    """Return rows with equal keys as CSV with a header, or "" without rows; None becomes an empty cell.

    Floats are rounded to `digits` significant digits; None keeps enough to read the same value back. A text that a
    spreadsheet would take for a formula gets an apostrophe before it.
    """
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns, short = list(rows[0]), digits is not None
    writer.writerow(map(escape_cell, columns))
    for row in rows:
        values = (row[column] for column in columns)
        writer.writerow(f"{v:.{digits}g}" if short and isinstance(v, float) else escape_cell(v) for v in values)
    return text.getvalue()
