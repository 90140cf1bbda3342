"""Power of a design before it is run: the minimum detectable difference and the number of seeds for an effect.

Without an image error, it is the power of the t-test (Cohen, "Statistical power analysis", 1988, ch. 2, the noncentral
t). The image error does not shrink with more seeds; with it, the interval of `crossed.py` is averaged over the standard
deviations that S seeds may show. The input is the standard deviation of the paired difference over seeds, from a pilot
or an earlier study; an estimate from 5 seeds is uncertain by a factor of 0.6 to 2.9.
"""
# S seeds, G clusters

from __future__ import annotations

import numpy as np
from scipy.optimize import brentq
from scipy.stats import chi2, norm, t

ALPHA = 0.05
POWER = 0.8
NODES = 200  # of the quadrature, which agrees with the noncentral t to 1e-4
MOST_SEEDS = 1_000_000
NOTHING_SHOWN = "no difference can be shown with this design: it needs more seeds or test images"


def power_of(
    effect: float,
    std: float,
    num_seeds: int,
    alpha: float = ALPHA,
    *,
    image_error: float = 0.0,
    num_clusters: float = np.inf,
) -> float:
    """The probability that the interval of level 1 - alpha excludes 0 if the true mean difference is `effect`.

    `std` is the standard deviation of the paired difference over seeds; `image_error` is the standard error that only
    more test images lower, estimated from `num_clusters`. Raises `ValueError` for fewer than 2 seeds or clusters, a
    negative error or an alpha outside (0, 1).
    """
    if num_seeds < 2 or num_clusters < 2:
        raise ValueError(f"need 2 or more seeds and clusters; found {num_seeds} and {num_clusters}")
    if not (std >= 0 and image_error >= 0 and 0 < alpha < 1):
        raise ValueError(f"need errors >= 0 and alpha in (0, 1); found {std}, {image_error} and {alpha}")
    error = np.hypot(std / np.sqrt(num_seeds), image_error)
    if error == 0:
        return float(effect != 0)
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    shown = std * np.sqrt(chi2.ppf((nodes + 1) / 2, num_seeds - 1) / (num_seeds - 1) / num_seeds)  # (NODES,)
    image_reach = (norm.isf(alpha / 2) if np.isinf(num_clusters) else t.isf(alpha / 2, num_clusters - 1)) * image_error
    reach = np.hypot(t.isf(alpha / 2, num_seeds - 1) * shown, image_reach)
    found = norm.sf((reach - effect) / error) + norm.cdf((-reach - effect) / error)
    return float(found @ weights / 2)


def minimum_detectable(
    std: float,
    num_seeds: int,
    power: float = POWER,
    alpha: float = ALPHA,
    *,
    image_error: float = 0.0,
    num_clusters: float = np.inf,
) -> float:
    """The smallest true difference that the design detects with this power, in the unit of `std`.

    Arguments are as in `power_of`; for a family of m comparisons pass alpha / m, Holm's first step. Raises `ValueError`
    as `power_of` does, and for a power outside [alpha, 1).
    """
    if not alpha <= power < 1:
        raise ValueError(f"power must lie in [alpha, 1) = [{alpha}, 1); found {power}")

    def lacking(effect: float) -> float:
        return power_of(effect, std, num_seeds, alpha, image_error=image_error, num_clusters=num_clusters) - power

    upper = np.hypot(std, image_error)
    if upper == 0:
        return 0.0
    while lacking(upper) < 0:
        upper *= 2
    # the power at 0 is at most alpha, as the combined interval is slightly conservative: the bracket starts at 0
    return float(brentq(lacking, 0.0, upper)) if lacking(0.0) < 0 else 0.0


def largest_difference(arm_score: float, baseline_score: float) -> float:
    """The largest true difference that is possible: a share stays in [0, 1]; infinite for minus an error."""
    return np.inf if min(arm_score, baseline_score) < 0 else max(baseline_score, 1 - baseline_score)


def required_seeds(
    effect: float,
    std: float,
    power: float = POWER,
    alpha: float = ALPHA,
    *,
    image_error: float = 0.0,
    num_clusters: float = np.inf,
) -> int | None:
    """The smallest number of seeds that detects `effect` with this power; None if a million do not suffice.

    In that case more test images are needed. Arguments are as in `power_of`. Raises `ValueError` as
    `minimum_detectable` does, and for an effect of 0.
    """
    if effect == 0 or not alpha <= power < 1:
        raise ValueError(f"need an effect other than 0 and power in [{alpha}, 1); found {effect} and {power}")

    def enough(num_seeds: int) -> bool:
        found = power_of(effect, std, num_seeds, alpha, image_error=image_error, num_clusters=num_clusters)
        return found >= power

    upper = 2
    while not enough(upper):
        upper *= 2
        if upper > MOST_SEEDS:
            return None
    lower = upper // 2  # too few, or 1
    while upper - lower > 1:
        middle = (lower + upper) // 2
        lower, upper = (lower, middle) if enough(middle) else (middle, upper)
    return upper
