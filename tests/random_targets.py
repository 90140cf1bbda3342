"""Targets for the pretexts that need features of every image, so that tests can loop over all pretexts."""

import numpy as np

from vision_mtl.pretext.contract import Pretext


def with_random_targets(pretext: Pretext, count: int = 300) -> Pretext:
    """The pretext with random features of `count` images, or unchanged if it needs none."""
    request = pretext.feature_request
    if request is None:
        return pretext
    features = np.random.default_rng(0).normal(size=(count, 1 + request.mirrored, request.width))
    return pretext.bound(features.astype(np.float16))
