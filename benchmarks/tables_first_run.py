"""The tables of `first_run.py`: what a newcomer's first command learns, how long it takes, and what it prints."""
# S seeds

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from vision_mtl.config.run_config import REPAIRS

Record = Mapping[str, Any]
Rows = list[list[str]]
DETAILS = "what training added on held-out images"  # the long table begins here; the README quotes what is above it


def features(data: Record) -> Rows:
    """Return a row for each task: the probe before and after training, mean over seeds, and each seed's difference."""
    seeds = list(data["seeds"].values())
    rows = [["task", "before", "after", "difference in points, by seed", "better"]]
    for task in seeds[0]["features"]:
        own = [seed["features"][task] for seed in seeds]
        means = [_mean(score[part]["value"] for score in own) for part in ("untrained", "trained")]
        apart = [_points(score["difference"]) for score in own]
        better = sum(score["verdict"] == "better" for score in own)
        rows.append([task, *means, "; ".join(apart), f"{better} of {len(own)}"])
    return rows


def repairs(data: Record) -> Rows:
    """Return a row for each repair and source: skill learned, mean over seeds, and how many seeds call it learned."""
    seeds = [seed["skill_learned_by_source"] for seed in data["seeds"].values()]
    rows = [["pretext", "images", "skill learned", "called learned"]]
    for pretext in REPAIRS:
        for source in seeds[0]:
            own = [seed[source][pretext] for seed in seeds if pretext in seed.get(source, {})]
            if own:
                learned = sum(score["learned"] for score in own)
                mean = float(np.mean([score["value"] for score in own]))
                rows.append([pretext, source, f"{mean:+.3f}", f"{learned} of {len(own)}"])
    return rows


def phases(data: Record) -> Rows:
    """Return a row for each phase of the first seed, with its seconds, and one for the whole command."""
    first = next(iter(data["seeds"].values()))
    rows = [[name, f"{seconds:.0f}"] for name, seconds in first["phases"].items() if seconds >= 1]
    return [["phase", "seconds"], *rows, ["the whole command", f"{first['seconds']:.0f}"]]


def output(data: Record) -> str:
    """Return what the first seed printed, without the details, as a block of code."""
    printed = next(iter(data["seeds"].values()))["printed"]
    return f"```\n{printed.partition(DETAILS)[0].rstrip()}\n...\n```"


def _mean(values: Iterable[float]) -> str:
    return f"{np.mean(list(values)):.3f}"


def _points(score: Record) -> str:
    shown = f"{100 * score['value']:+.1f}"
    return shown if score["low"] is None else f"{shown} ({100 * score['low']:+.1f} to {100 * score['high']:+.1f})"
