"""`local-dir:` and `hf-hub:` name backbones as timm does, and each mistake in them is one clear error."""

import json
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import save_file
from timm.models import save_for_hf

from vision_mtl.core.errors import UserError
from vision_mtl.export.backbone import write_backbone
from vision_mtl.models.backbone import Backbone


@pytest.fixture(params=["export", "timm"])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, torch.nn.Module]:
    """A folder of a model as our export and as timm writes it, and the model."""
    torch.manual_seed(1)
    folder = tmp_path / "kept model"
    if request.param == "export":
        backbone = Backbone("test_resnet", image_size=(32, 32), kwargs={"output_stride": 16})
        write_backbone(backbone, folder, "stretch")
        return folder, backbone.model
    model = timm.create_model("test_resnet", num_classes=7)
    save_for_hf(model, str(folder), model_config={"num_classes": 7})
    return folder, model


@pytest.mark.parametrize(("chans", "size"), [(3, (32, 32)), (3, (64, 48))])
def test_a_local_folder_gives_its_weights(saved, chans: int, size: tuple[int, int]) -> None:
    folder, model = saved
    found = Backbone(f"local-dir:{folder}", True, chans, image_size=size)
    own = model.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in found.model.state_dict().items())


def test_without_pretrained_a_folder_gives_its_architecture_only(saved) -> None:
    folder, model = saved
    torch.manual_seed(0)
    found = Backbone(f"local-dir:{folder}", image_size=(32, 32))
    name, kernel = next((n, p) for n, p in found.model.named_parameters() if p.ndim == 4)
    assert not torch.equal(kernel, model.get_parameter(name))
    assert found.map_sizes == Backbone(f"local-dir:{folder}", True, image_size=(32, 32)).map_sizes
    assert Backbone(f"local-dir:{folder}", True, 1, image_size=(32, 32)).in_chans == 1  # summed over channels by timm


def test_a_folder_without_a_model_is_an_error(tmp_path: Path) -> None:
    def refused(match: str, pretrained: bool = False) -> None:
        with pytest.raises(UserError, match=match):
            Backbone(f"local-dir:{tmp_path / 'here'}", pretrained, image_size=(32, 32))

    refused(r"here. does not exist. Give a folder that --stage export \(RUN.backbone\)")
    (tmp_path / "here").mkdir()
    config = tmp_path / "here" / "config.json"
    refused("has no config.json")
    config.write_text("{oops")
    refused("cannot be read as JSON")
    for text in ("[1]", '{"architectures": ["BertModel"]}', '{"architecture": "no_such_net"}'):
        config.write_text(text)
        refused("names no architecture of timm; found")
    config.write_text(json.dumps({"architecture": "test_resnet", "num_classes": 0}))
    refused("No suitable checkpoints", pretrained=True)
    (tmp_path / "here" / "model.safetensors").write_bytes(b"junk")
    refused("header too small", pretrained=True)


@pytest.mark.parametrize("num_classes", [0, 7])
def test_weights_of_another_architecture_are_not_left_at_random(tmp_path: Path, num_classes: int) -> None:
    save_for_hf(timm.create_model("test_resnet", num_classes=num_classes), str(tmp_path))
    for file in tmp_path.glob("*model*.*"):
        file.unlink()
    save_file(timm.create_model("test_vit", num_classes=0).state_dict(), tmp_path / "model.safetensors")
    with pytest.raises(UserError, match=r"weights could not be loaded .*--backbone.pretrained false takes"):
        Backbone(f"local-dir:{tmp_path}", True, image_size=(32, 32))


@pytest.mark.parametrize(
    ("name", "pretrained", "match"),
    [
        (
            "hf-hub:nobody/nothing",
            False,
            "could not be loaded from the Hugging Face hub .*no connection.*local-dir:FOLDER",
        ),
        (
            "resnet18",
            True,
            "could not be loaded .*no connection.*tf_efficientnet_lite0 .*pretrained FILE",
        ),
    ],
)
def test_without_a_network_there_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch, name: str, pretrained: bool, match: str
) -> None:
    def offline(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("no connection")

    assert hasattr(huggingface_hub, "hf_hub_download")
    monkeypatch.setattr("timm.models._hub.hf_hub_download", offline)
    with pytest.raises(UserError, match=match):
        Backbone(name, pretrained, image_size=(32, 32))
