"""Cells of a contact sheet: an image, its predictions as a caption, its predicted masks."""
# K classes, H W pixels, C channels

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vision_mtl.data.depth import floats
from vision_mtl.inference.prediction_files import TaskOutput, prediction_text, read_mask
from vision_mtl.viz.bands import shown_bands
from vision_mtl.viz.predictions import Cell, mask_palette, overlay

MAX_SHARES = 3  # classes of a mask that its caption names


def make_cell(
    outputs: Mapping[str, TaskOutput],
    pixels: np.ndarray,
    record: dict[str, Any],
    numbers: Mapping[str, np.ndarray],
    bands: Sequence[int] | None = None,
) -> Cell:
    """Return the cell of one image (H, W, C): the image, then each predicted mask over it, and the predictions.

    `record` is the image's entry of `predictions.json`, `numbers` each task's (K,), (1,) or (K, H, W); `bands` are
    shown as red, green and blue.
    """
    image = shown_bands(floats(pixels), bands)
    pictures = [image if image.shape[2] > 1 else np.repeat(image, 3, axis=2)]
    lines: list[tuple[str, str | tuple[float, ...]]] = []
    for task, output in outputs.items():
        prediction = record["tasks"][task]
        if not output.is_dense:
            lines.append((f"{task}: {caption(output, prediction)}", "black"))
            continue
        pictures.append(overlay(image, read_mask(output, numbers[task])))
        largest = sorted(prediction["shares"].items(), key=lambda item: -item[1])[:MAX_SHARES]
        colours = mask_palette()[output.mask_values] / 255
        for name, share in largest:
            colour = tuple(colours[output.class_names.index(name)])
            lines.append((f"■ {task} {name}: {share:.0%}", colour))
    return Cell(pictures, record["image"], lines)


def caption(output: TaskOutput, prediction: Mapping[str, Any]) -> str:
    """Return a prediction and its probability on one line."""
    probability = f" ({prediction['probability']:.2f})" if output.has_probability else ""
    return f"{prediction_text(prediction, output.separator)}{probability}"
