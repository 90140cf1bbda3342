"""A predicted image as a cell of a contact sheet: the picture, its caption, its masks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vision_mtl.inference.prediction_files import (
    TaskOutput,
    prediction_text,
    read_mask,
)
from vision_mtl.viz.predictions import Cell, mask_palette, overlay

MAX_SHARES = 3  # classes of a mask that its caption names


def make_cell(
    questions: Mapping[str, TaskOutput], pixels: np.ndarray, record: dict[str, Any], numbers: Mapping[str, np.ndarray]
) -> Cell:
    """One image of the contact sheet: itself (H, W, C), each mask over it, and the answers."""
    image = pixels.astype(np.float32) / 255
    pictures, lines = [image if image.shape[2] > 1 else np.repeat(image, 3, axis=2)], []
    for task, question in questions.items():
        answer = record["tasks"][task]
        if not question.is_dense:
            lines.append((caption(task, question, answer), "black"))
            continue
        pictures.append(overlay(image, read_mask(question, numbers[task])))
        largest = sorted(answer["shares"].items(), key=lambda item: -item[1])[:MAX_SHARES]
        colours = mask_palette()[question.values] / 255
        for name, share in largest:
            colour = tuple(colours[question.class_names.index(name)])
            lines.append((f"■ {task} {name}: {share:.0%}", colour))
    return Cell(pictures, record["image"], lines)


def caption(task: str, question: TaskOutput, answer: Mapping[str, Any]) -> str:
    """A head's answer and how sure it is, on one line."""
    sure = f" ({answer['probability']:.2f})" if question.has_probability else ""
    return f"{task}: {prediction_text(answer, question.separator)}{sure}"
