"""What a head predicted over all images of `predict`: classes with their shares, a median, or shares of the pixels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from vision_mtl.data.targets import NO_CLASS
from vision_mtl.inference.prediction_files import TaskOutput

UNCERTAIN = 0.5  # a single class with a smaller probability is less likely than all others together
MAX_CLASSES = 8  # named in a line of text


class PredictionSummary:
    """Sums over the predictions of one task; `output` tells how they are read."""

    def __init__(self, output: TaskOutput) -> None:
        self.output = output
        self._classes: Counter[str] = Counter()
        self._pixels: Counter[str] = Counter()
        self._values: list[float] = []
        self._images = self._uncertain = 0

    def add(self, prediction: Mapping[str, Any]) -> None:
        """Count one image's entry of `predictions.json`."""
        self._images += 1
        if "value" in prediction:
            self._values.append(prediction["value"])
        elif "shares" in prediction:
            self._pixels.update(prediction["shares"])
        elif "classes" in prediction:
            self._classes.update(prediction["classes"] or [NO_CLASS])
        else:
            self._classes.update([prediction["class"]])
            self._uncertain += prediction["probability"] < UNCERTAIN

    def to_json(self) -> dict[str, Any]:
        """Return `shares` of images with `counts`, or of pixels, the largest first; or `median`, `min` and `max`.

        `uncertain` counts the images whose class has a probability below `UNCERTAIN`.
        """
        if not self._images:
            return {}
        if self._values:
            return {
                "median": round(float(np.median(self._values)), self.output.decimals),
                "min": min(self._values),
                "max": max(self._values),
            }
        pixels = {name: share / self._images for name, share in self._pixels.most_common()}
        if pixels:
            return {"of": "pixels", "shares": {name: round(share, 6) for name, share in pixels.items()}}
        shares = {name: round(count / self._images, 6) for name, count in self._classes.most_common()}
        found = {"of": "images", "counts": dict(self._classes.most_common()), "shares": shares}
        return found | ({"uncertain": self._uncertain} if self.output.one_class else {})


def summary_text(summary: Mapping[str, Any]) -> str:
    """Return a summary in words: `tabby: 31 (62 %), pug: 19 (38 %); 4 with a probability below 50 %`."""
    if not summary:
        return "no image"
    if "median" in summary:
        return f"median {summary['median']:g}, from {summary['min']:g} to {summary['max']:g}"
    counts = summary.get("counts")
    shown = [
        f"{name}: {counts[name]:,} ({_per_cent(share)})" if counts else f"{name}: {_per_cent(share)}"
        for name, share in list(summary["shares"].items())[:MAX_CLASSES]
    ]
    more = len(summary["shares"]) - MAX_CLASSES
    text = ", ".join(shown) + (f", and {more} more" if more > 0 else "")
    text += " of the pixels" if summary["of"] == "pixels" else ""
    uncertain = summary.get("uncertain")
    return f"{text}; {uncertain:,} with a probability below {_per_cent(UNCERTAIN)}" if uncertain else text


def _per_cent(share: float) -> str:
    return "under 1 %" if 0 < share < 0.01 else f"{100 * share:.0f} %"
