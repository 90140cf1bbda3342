"""What is hidden changes no prediction, bit for bit, in architectures of every kind; and each of them takes a step."""

import pytest
import torch

from vision_mtl.core.rng import Keys
from vision_mtl.models.backbone import Backbone
from vision_mtl.models.decoder import DECODERS, MapSpec
from vision_mtl.models.shared import SharedModel
from vision_mtl.pretext.contract import PRETEXTS
from vision_mtl.pretext.mixture import Mixture
from vision_mtl.training.objective import step_loss
from vision_mtl.training.repair import PretextObjective, head_specs, measure_chance_losses

# a kind each: plain ViT, with relative positions, windows, hybrid, pyramid; residual, depthwise, dense, mobile and
# modern convolutions; an MLP, a pooling mixer, and one without patches of one size
FAMILIES = {
    "vit_tiny_patch16_224": 64,
    "beit_base_patch16_224": 64,
    "swin_tiny_patch4_window7_224": 64,
    "maxvit_tiny_tf_224": 64,
    "pvt_v2_b0": 64,
    "resnet10t": 64,
    "convnextv2_atto": 64,
    "efficientnet_b0": 64,
    "densenet121": 64,
    "mobilenetv3_small_050": 64,
    "mixer_s32_224": 224,
    "poolformer_s12": 64,
}
LARGE = {"beit_base_patch16_224", "swin_tiny_patch4_window7_224", "maxvit_tiny_tf_224", "densenet121", "mixer_s32_224"}
CASES = [pytest.param(name, marks=[pytest.mark.slow] if name in LARGE else []) for name in FAMILIES]
# masks of every form; `learned` fills belong to the model, the others to the pretext
DAMAGES = {
    "one": {"hidden": "one"},
    "ratio": {"hidden": "ratio", "grid": 8, "ratio": 0.6},
    "learned": {"hidden": "ratio", "grid": 4, "ratio": 0.5, "fill": "learned"},
}
KEYS = Keys(0, 0, torch.arange(2))


def build(name: str, pretexts: dict, decoder: str) -> SharedModel:
    torch.manual_seed(0)
    size = FAMILIES[name]
    backbone = Backbone(name, image_size=(size, size))
    maps = MapSpec(backbone.channels, backbone.map_sizes, backbone.image_size)
    return SharedModel(backbone, DECODERS.get(decoder)().build(maps), head_specs(pretexts, 3))


@pytest.mark.parametrize("name", CASES)
def test_hidden_pixels_change_no_prediction(name: str) -> None:
    pretexts = {f"grid_mask_{key}": PRETEXTS.get("grid_mask")(**options) for key, options in DAMAGES.items()}
    pretexts["chain"] = PRETEXTS.get("chain")()
    mixture = Mixture(pretexts)
    for decoder in ("stages", "transformer"):
        model = build(name, pretexts, decoder).eval()
        images = torch.rand(2, 3, *model.backbone.image_size, generator=torch.Generator().manual_seed(0))
        for key in pretexts:
            part, damaged = mixture.prepare_all(key, images, KEYS)
            other, seen = mixture.prepare_all(key, torch.where(part.mask, float("nan"), images), KEYS)
            with torch.no_grad():
                first = model(damaged, [part])[key][0]
                second = model(seen, [other])[key][0]
            assert bool(first.isfinite().all()) and torch.equal(first, second)


@pytest.mark.parametrize("name", CASES)
def test_one_step_with_all_pretexts_reaches_the_first_layer(name: str) -> None:
    pretexts = {key: PRETEXTS.get(key)() for key in ("grid_mask", "decolorise", "downsample")}
    model = build(name, pretexts, "stages").train()
    images = torch.rand(6, 3, *model.backbone.image_size, generator=torch.Generator().manual_seed(0))
    mixture = Mixture(pretexts)
    keys = next(k for k in (Keys(s, 0, torch.arange(6)) for s in range(99)) if len(mixture.assign(k).unique()) == 3)
    loss = step_loss(model, PretextObjective(mixture, measure_chance_losses(mixture, images, keys)), (images, keys))
    loss.total.backward()
    weights = (getattr(module, "weight", None) for module in model.backbone.model.modules())
    first = next(w for w in weights if isinstance(w, torch.nn.Parameter) and w.ndim > 1)
    assert bool(loss.total.isfinite()) and set(loss.shown) == set(pretexts)
    assert first.grad is not None and bool(first.grad.isfinite().all()) and bool(first.grad.any())
