"""A study's runs that start from a file of weights are identified by its content."""

from __future__ import annotations

from pathlib import Path

import pytest

from vision_mtl.config.resolve import resolve
from vision_mtl.core.errors import UserError
from vision_mtl.recipes.study_options import composer


def test_a_run_from_other_weights_is_another_run(tmp_path: Path) -> None:
    compose = composer(resolve("study", {"tasks": {"a": {"source": "folder/x"}}}, {}), {})
    file = tmp_path / "net.pth"
    backbone = {"backbone": {"name": "test_resnet", "pretrained": str(file)}, "seed": 0}
    with pytest.raises(UserError, match=r"backbone\.pretrained must be false, true, or .*net\.pth' does not exist"):
        compose("finetune", backbone)

    def key(content: bytes, **options: object) -> str:
        file.write_bytes(content)
        own = composer(resolve("study", {"tasks": {"a": {"source": "folder/x"}}}, {}), {})
        return own("finetune", {**backbone, **options})[1]

    first = key(b"one")
    assert first == key(b"one") and first != key(b"two")
    packaged = compose("finetune", {"backbone": {"pretrained": True}, "seed": 0})[1]
    assert "weights " not in packaged and "input_size" not in packaged  # as in studies that are older than the option
    assert "input_size: 128" in compose("finetune", {"backbone": {"input_size": 128}, "seed": 0})[1]
