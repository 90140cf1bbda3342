"""Test images: smooth colours with grain, and photographs for tests of their properties."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F


@pytest.fixture
def images() -> Tensor:
    """(6, 3, 48, 64) in [0, 1]."""
    generator = torch.Generator().manual_seed(0)
    smooth = F.interpolate(torch.rand(6, 3, 4, 4, generator=generator), size=(48, 64), mode="bicubic").clamp(0, 1)
    return (0.9 * smooth + 0.1 * torch.rand(6, 3, 48, 64, generator=generator)).clamp(0, 1)


@pytest.fixture(scope="session")
def photographs() -> Tensor:
    """(120, 3, 64, 64): crops of the packaged photographs."""
    from vision_mtl.data.resize import resize
    from vision_mtl.data.source import open_source

    source = open_source("bundled/photos", None)
    crops = [resize(source.read(item), (64, 64)) for item in source.items()[::57][:120]]
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() / 255
