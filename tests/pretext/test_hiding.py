"""Hidden pixels become 0 whatever their value; visible ones stay bit-identical."""

import pytest
import torch

from vision_mtl.pretext.hiding import blank


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_hidden_pixels_become_zero_and_others_stay(dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    random = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 5, 7, generator=random).to(dtype).contiguous(memory_format=memory_format)
    mask = torch.rand(4, 1, 5, 7, generator=random) < 0.5
    images[0].masked_fill_(mask[0], torch.nan)
    images[1].masked_fill_(mask[1], -torch.inf)
    images[2].masked_fill_(~mask[2], torch.nan)  # a visible NaN stays, so that later checks find it
    before = images.clone()
    found = blank(images, mask)
    expected = torch.where(mask, torch.zeros((), dtype=dtype), images)
    torch.testing.assert_close(found, expected, rtol=0, atol=0, equal_nan=True)
    assert not found.signbit()[mask.expand_as(found)].any() and found.dtype == dtype
    torch.testing.assert_close(images, before, rtol=0, atol=0, equal_nan=True)


def test_empty_and_full_masks() -> None:
    images = torch.rand(2, 1, 3, 3)
    assert torch.equal(blank(images, torch.zeros(2, 1, 3, 3, dtype=torch.bool)), images)
    assert not blank(images, torch.ones(2, 1, 3, 3, dtype=torch.bool)).any()


def test_gradients_reach_visible_pixels_only() -> None:
    images = torch.rand(1, 1, 2, 2, requires_grad=True)
    mask = torch.tensor([[[[True, False], [False, True]]]])
    blank(images, mask).sum().backward()
    assert torch.equal(images.grad, (~mask).float())
