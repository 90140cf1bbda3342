"""How often arms are called equivalent, rightly and falsely: simulations of `benchmarks/statistics.py`."""
# D draws, S seeds, n images

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks.laws import CHUNK, chunks, law_of, spread_of
from vision_mtl.evaluation.crossed import Spread
from vision_mtl.evaluation.scores import proportion
from vision_mtl.study.design import IMAGE_STD, REST_STD

ROPES = (0.01, 0.02, 0.03)
APART = {"equal": 0.0, "half": 0.5, "outside": 1.1}  # in ropes
STUDY_STD = 0.01  # over seeds, of a paired difference on many test images; few images add `REST_STD` / sqrt(n)
FAMILY = 8  # comparisons
FALSE_EQUIVALENT = 0.025


def equivalent(
    random: np.random.Generator, draws: int, law: str, seeds: int, images: int, rope: float
) -> dict[str, Any]:
    """How often two arms are called equivalent, alone (any of `APART`) and in a family of `FAMILY` comparisons.

    Images have an effect of their own and disagreements of two arms as `study/design.py` expects them. In the family,
    all comparisons are equal (how many are found: Holm finds at least these) or all are just outside (how often any is
    called: at most this, because one that `helps` is not).
    """
    found: dict[str, list[np.ndarray]] = {name: [] for name in APART}
    at_first_step: dict[str, list[np.ndarray]] = {"equal": [], "outside": []}
    for name, effect in APART.items():
        for count in chunks(draws, CHUNK):
            own = law_of(random, law, (count, seeds, 1)) * STUDY_STD
            own = own + IMAGE_STD * random.standard_normal((count, 1, images))
            one = spread_of(effect * rope + own + REST_STD * random.standard_normal((count, seeds, images), np.float32))
            found[name].append(is_equivalent(one, 0.95, rope))
            if name in at_first_step:
                at_first_step[name].append(is_equivalent(one, 1 - 0.05 / FAMILY, rope))
    rates = {name: float(np.concatenate(kept).mean()) for name, kept in found.items()}
    each = {name: np.concatenate(kept) for name, kept in at_first_step.items()}
    anyone = proportion(each["outside"][: draws // FAMILY * FAMILY].reshape(-1, FAMILY).any(1))
    rates |= {"equal, family": float(each["equal"].mean()), "any outside, family": anyone.value}
    false = proportion(np.concatenate(found["outside"]))
    within = max(false.low or 0.0, anyone.low or 0.0) <= FALSE_EQUIVALENT
    return {"law": law, "seeds": seeds, "images": images, "rope": rope, **rates, "within": within}


def unseen(random: np.random.Generator, draws: int, seeds: int, images: int) -> dict[str, Any]:
    """False `equivalent` of arms that differ on few images, in every seed on the same ones, with our rule and without.

    One arm is right and the other wrong on a share of images just above the rope; on all others they agree.
    """
    called: dict[str, list[np.ndarray]] = {"ours": [], "interval alone": []}
    for count in chunks(draws, CHUNK):
        differs = (random.random((count, 1, images)) < APART["outside"] * ROPES[0]).astype(np.float64)
        one = spread_of(np.repeat(differs, seeds, axis=1))
        for name, is_share in (("ours", True), ("interval alone", False)):
            called[name].append(is_equivalent(one, 0.95, ROPES[0], is_share))
    false = {name: proportion(np.concatenate(kept)) for name, kept in called.items()}
    within = (false["ours"].low or 0.0) <= FALSE_EQUIVALENT
    return {"seeds": seeds, "images": images, **{name: one.value for name, one in false.items()}, "within": within}


def is_equivalent(one: Spread, level: float, rope: float, is_share: bool = True) -> np.ndarray:
    """Whether each mean is called equivalent at `level`: the rule of `Comparison`, for many draws at once."""
    low, high = one.interval(level)
    enough = not is_share or 2 * (1 - rope) ** (one.image_degrees + 1) <= 1 - level
    return (low <= 0) & (high >= 0) & (np.maximum(-low, high) <= rope) & enough
