"""How every timing here is taken: variants interleaved in one process, medians, ratios with a bootstrap interval.

A machine that others use slows down for seconds at a time. Variants that take turns in blocks of a fraction of a second
suffer alike, and a ratio of medians over blocks is what is left of them. Blocks are resampled whole, so what slowed one
variant slows its neighbour in the same resample.

`clock` is `wall`, or `cpu`: the processor time of this process. With one thread and all data in memory the two agree on
an idle machine, and on a busy one the second still says what the arithmetic costs. It does not see waiting.
"""
# R resamples, n blocks

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import torch

RESAMPLES = 2000
BLOCKS = 30

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}

Seconds = dict[str, np.ndarray]  # by variant: (n,) seconds of one call in each block


def interleave(
    variants: Mapping[str, Callable[[], object]],
    *,
    blocks: int = BLOCKS,
    calls: int = 1,
    warm_up: int = 2,
    clock: str = "wall",
) -> Seconds:
    """Seconds of one call of each variant in each block; the order turns by one from block to block.

    On a GPU the clock waits for the device at both ends of a variant's turn.
    """
    for call in variants.values():
        for _ in range(warm_up):
            call()
    now = CLOCKS[clock]
    names, found = list(variants), {name: np.zeros(blocks) for name in variants}
    for block in range(blocks):
        turn = block % len(names)
        for name in names[turn:] + names[:turn]:
            _wait()
            start = now()
            for _ in range(calls):
                variants[name]()
            _wait()
            found[name][block] = (now() - start) / calls
    return found


def speed_ratio(seconds: Seconds, name: str, other: str) -> dict[str, float]:
    """How many times as fast `name` is as `other`: the ratio of medians, and the ends of its 95 % interval."""
    pair = np.stack([seconds[other], seconds[name]])  # (2, n)
    blocks = pair.shape[1]
    drawn = np.random.default_rng(0).integers(blocks, size=(RESAMPLES, blocks))
    medians = np.median(pair[:, drawn], axis=-1)  # (2, R)
    low, high = np.quantile(medians[0] / medians[1], [0.025, 0.975])
    value = np.median(pair[0]) / np.median(pair[1])
    return {"value": float(value), "low": float(low), "high": float(high), "blocks": blocks}


def shown(ratio: Mapping[str, float]) -> str:
    """A ratio for a table."""
    return f"{ratio['value']:.2f} ({ratio['low']:.2f} to {ratio['high']:.2f})"


def summary(values: np.ndarray) -> dict[str, float]:
    """Median and quartiles."""
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    return {"median": float(median), "quartile_1": float(low), "quartile_3": float(high)}


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
