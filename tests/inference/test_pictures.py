"""Panels of embedding pretexts: captions count the views of other images that are nearer."""

from __future__ import annotations

import torch

from vision_mtl.core.rng import Keys
from vision_mtl.inference.pictures import part_panel
from vision_mtl.pretext.contrast import Contrast
from vision_mtl.pretext.mixture import Mixture


def test_only_views_of_other_images_count_as_nearer() -> None:
    images = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    mixture = Mixture({"contrast": Contrast(views=3, view_size=8)})
    part, damaged = mixture.prepare_all("contrast", images, Keys(0, 0, torch.arange(4)))
    embedding = torch.eye(4).repeat_interleave(3, 0)  # each image's three views agree
    embedding[2] = torch.tensor([1.0, 0.1, 0.0, 0.0])  # and a third that agrees less is not counted
    embedding[4] = torch.tensor([1.0, 0.5, 0.0, 0.0])  # the second of image 1 is at image 0, and one of 2 near image 1
    embedding[8] = torch.tensor([0.0, 1.0, 1.0, 0.0])
    panel = part_panel("views", part, damaged, embedding)
    assert panel.captions == ["found", "1 nearer", "found", "found"]
    assert [label for label, _ in panel.rows] == ["original", "one view", "another view"]
    assert [pictures.shape for _, pictures in panel.rows] == [(4, 16, 16, 3), (4, 8, 8, 3), (4, 8, 8, 3)]
