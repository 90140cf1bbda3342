"""Pools of synthetic images with known structure, built without files."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from vision_mtl.data.pool import Pool
from vision_mtl.data.targets import Target

BuildPool = Callable[..., Pool]


@pytest.fixture(scope="session")
def pool_of() -> BuildPool:
    """A function that builds a pool of float images (N, H, W, 3) in [0, 1], all for training."""

    def build(
        images: np.ndarray,
        labels: Mapping[str, np.ndarray] | None = None,
        cluster: np.ndarray | None = None,
        member: np.ndarray | None = None,
    ) -> Pool:
        count = len(images)
        member = np.ones((count, 1), bool) if member is None else member
        sources = [f"planted/{letter}" for letter in "abcdefgh"[: member.shape[1]]]
        targets = {
            name: Target(kind="single_label", values=values, class_names=[f"class{k}" for k in range(values.max() + 1)])
            for name, values in (labels or {}).items()
        }
        return Pool(
            blocks=[np.round(images * 255).astype(np.uint8)],
            identities=[f"{sources[member[i].argmax()]}::{i:04d}" for i in range(count)],
            paths=[None] * count,
            sources=sources,
            member=member,
            split=np.zeros(count, np.int8),
            cluster=np.arange(count) if cluster is None else cluster,
            targets=targets,
            findings=[],
            details={},
        )

    return build
