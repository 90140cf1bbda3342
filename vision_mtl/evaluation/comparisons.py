"""Paired comparison of two arms that were run with the same seeds and scored on the same test images.

Differences are computed for each instance and seed, so the difficulty that both arms share cancels. The interval
(`crossed.py`) generalises to other seeds *and* other test images. The exact sign-flip p-value (`sign_flip.py`) covers
other seeds only and assumes no distribution. The interval decides, because 5 seeds cannot give a p-value below .0625.
"""
# S seeds, n instances, m comparisons of a family

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from vision_mtl.evaluation.crossed import Spread, spread
from vision_mtl.evaluation.power import NOTHING_SHOWN, largest_difference, minimum_detectable
from vision_mtl.evaluation.scores import LEVEL, Score
from vision_mtl.evaluation.sign_flip import sign_flip

Verdict = Literal["helps", "hurts", "equivalent", "undecided"]


@dataclass(frozen=True)
class Comparison:
    """An arm minus its baseline, on one task at one label fraction.

    `p_value` comes from the exact sign-flip test over seeds. `interval_p_value` is the largest alpha at which the
    interval excludes 0; a family is ranked by it. `level` is the level of the interval behind `verdict` and
    `minimum_detectable`: 95 % for a single comparison. `rope`, the region of practical equivalence, is the largest
    difference that does not matter, in the unit of the values; None: no difference is called equivalent. Lying within
    it is judged at `rope_level`, or at `level` if that is wider. `is_share`: values are shares of an image, such as
    hits, so a difference on few images may have been missed. `parts` are groups of images, each with its share of the
    score and its number of clusters: classes of balanced accuracy, of which a rare one weighs as much as the others.
    """

    task: str
    fraction: float
    arm: str
    baseline: str
    difference: Score
    arm_score: Score
    baseline_score: Score
    p_value: float
    interval_p_value: float
    spread: Spread
    guard_skew: bool
    is_share: bool
    rope: float | None = None
    parts: tuple[tuple[float, int], ...] = ()
    level: float = LEVEL
    rope_level: float = LEVEL

    @property
    def num_seeds(self) -> int:
        """The number S of seeds that both arms were run with."""
        return self.spread.num_seeds

    @property
    def std(self) -> float | None:
        """Standard deviation over seeds of the mean difference, the input of `required_seeds`; None for one seed."""
        return float(self.spread.seed_error * np.sqrt(self.num_seeds)) if self.num_seeds > 1 else None

    @property
    def image_error(self) -> float | None:
        """The standard error that only more test images lower; None for one seed or one cluster."""
        return float(self.spread.image_error) if np.isfinite(self.spread.image_error) else None

    @cached_property
    def minimum_detectable(self) -> float | None:
        """The smallest true difference that this design detects at `level` with 80 % power.

        None where the spread is unknown (one seed or cluster) or 0 (arms that never differ).
        """
        if self.std is None or self.image_error is None or self.std == self.image_error == 0:
            return None
        return minimum_detectable(
            self.std,
            self.num_seeds,
            alpha=1 - self.level,
            image_error=self.image_error,
            num_clusters=self.spread.image_degrees + 1,
        )

    @property
    def deciding(self) -> Score:
        """The difference with the interval of `level`."""
        return _score(self.spread, self.difference.n, self.level, self.guard_skew)

    @cached_property
    def rope_p_value(self) -> float:
        """The smallest alpha at which the interval, of level 1 - alpha, lies within ±`rope`; 1 without a rope.

        Arms that never differ show no spread over other seeds and images, so it is 1 for them too.
        For shares it is at least 2 (1 - rope)^G: with that probability / 2, none of G test images shows a difference
        that a share `rope` of all images has. Of a part with a share s of the score it is a share rope / s of its own.
        """
        if not self.rope or self.std == self.image_error == 0:
            return 1.0
        parts = self.parts or ((1.0, self.spread.image_degrees + 1),)
        unseen = max(2 * (1 - min(self.rope / share, 1.0)) ** count for share, count in parts)
        return max(unseen if self.is_share else 0.0, self.spread.p_value_within(self.rope, guard_skew=self.guard_skew))

    @property
    def within_rope(self) -> bool:
        """Whether the wider of the intervals of `level` and `rope_level` shows that the difference does not matter."""
        return self.rope_p_value <= 1 - max(self.level, self.rope_level)

    @property
    def verdict(self) -> Verdict:
        """helps or hurts if the interval of `level` lies above or below 0; equivalent if it lies within ±`rope`.

        Otherwise undecided. An effect that is shown but too small to matter helps or hurts, and is `within_rope`.
        """
        low, high = self.deciding.low, self.deciding.high
        if low is None or high is None:
            return "undecided"
        if low <= 0 <= high:
            return "equivalent" if self.within_rope else "undecided"
        return "helps" if low > 0 else "hurts"

    @property
    def reason(self) -> str:
        """The reason for the verdict, in words."""
        score = self.deciding
        if self.num_seeds < 2:
            return "one seed: no interval, for the spread over seeds is unknown"
        if score.low is None:
            return "one cluster of test images: no interval, for the spread over images is unknown"
        interval = f"the {100 * self.level:.4g} % interval [{score.low:.4g}, {score.high:.4g}]"
        if self.verdict == "equivalent":
            return f"{interval} lies within ±{self.rope:g}"
        if self.verdict != "undecided":
            small = f", and lies within ±{self.rope:g}" if self.within_rope else ""
            return f"{interval} leaves out 0{small}"
        shown = self.minimum_detectable
        if shown is None:
            return f"{interval} holds 0; all seeds and images agree"
        possible = shown <= largest_difference(self.arm_score.value, self.baseline_score.value)
        return f"{interval} holds 0; {f'this design shows {shown:.3g} with 80 % power' if possible else NOTHING_SHOWN}"


def compare(
    a: np.ndarray,
    b: np.ndarray,
    clusters: np.ndarray,
    *,
    task: str = "",
    fraction: float = 1.0,
    arm: str = "a",
    baseline: str = "b",
    guard_skew: bool = False,
    rope: float | None = None,
    parts: Sequence[tuple[float, int]] = (),
) -> Comparison:
    """Compare two arms by values (S, n): row s of both has the same seed, column i the same test instance.

    Instances of one cluster (n,), such as the crops of one photograph, count as one draw. `guard_skew` widens the
    interval where the seeds' differences are skewed. Differences up to `rope`, in the unit of the values, do not
    matter; without it no arms are called equivalent. `parts` are those of `Comparison`. Raises `ValueError` for shapes
    that differ or are not (S, n), no seed or instance, a non-finite value, or a negative rope.
    """
    if rope is not None and not rope >= 0:
        raise ValueError(f"rope must be 0 or more; found {rope}")
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or a.ndim != 2:
        raise ValueError(f"arms need equal shapes (S, n), the same seeds and instances; found {a.shape} and {b.shape}")
    found = spread(a - b, clusters)
    return Comparison(
        task=task,
        fraction=fraction,
        arm=arm,
        baseline=baseline,
        difference=_score(found, a.shape[1], LEVEL, guard_skew),
        arm_score=arm_score(a, clusters, guard_skew=guard_skew),
        baseline_score=arm_score(b, clusters, guard_skew=guard_skew),
        p_value=sign_flip((a - b).mean(1)),
        interval_p_value=found.p_value(guard_skew=guard_skew),
        spread=found,
        guard_skew=guard_skew,
        is_share=bool(min(a.min(), b.min()) >= 0),
        rope=rope,
        parts=tuple(parts),
    )


def arm_score(values: np.ndarray, clusters: np.ndarray, *, guard_skew: bool = False) -> Score:
    """The mean of one arm's values (S, n) with its 95 % interval for other seeds and other test images.

    The interval is None for one seed or one cluster (n,). That of values in [0, 1], such as hits, stays
    in [0, 1] and has a width. Raises `ValueError` as `compare` does.
    """
    values = np.asarray(values, np.float64)
    is_share = bool(values.size and values.min() >= 0 and values.max() <= 1)
    found = _score(spread(values, clusters, is_share=is_share), values.shape[1], LEVEL, guard_skew)
    if not is_share or found.low is None or found.high is None:
        return found
    return replace(found, low=max(min(found.low, found.value), 0.0), high=min(max(found.high, found.value), 1.0))


def _score(of: Spread, n: int, level: float, guard_skew: bool) -> Score:
    low, high = (float(end) for end in of.interval(level, guard_skew=guard_skew))
    known = np.isfinite([low, high]).all()
    return Score(float(of.mean), low if known else None, high if known else None, n, of.num_clusters)
