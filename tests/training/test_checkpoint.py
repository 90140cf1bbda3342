"""Checkpoints: valid or ignored, the newest valid one is used, and none can execute code."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vision_mtl.core.errors import UserError
from vision_mtl.training.checkpoint import (
    UNKNOWN,
    check,
    checkpoints,
    find_checkpoint,
    load_optimiser,
    newest_checkpoint,
    read_state,
    read_tensors,
    save_checkpoint,
    set_aside,
)


def trained() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2))
    model.unused = nn.Parameter(torch.zeros(3))
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(2):
        optimiser.zero_grad()
        model(torch.randn(2, 3, 8, 8)).square().sum().backward()
        optimiser.step()
    return model.to(memory_format=torch.channels_last), optimiser


def test_a_checkpoint_restores_what_was_saved(tmp_path: Path) -> None:
    model, optimiser = trained()
    path = save_checkpoint(tmp_path, {"step": 7, "names": ["ä"]}, model, optimiser, average=model)
    assert path.name == "step-00000007.safetensors" and read_state(path) == {"step": 7, "names": ["ä"]}
    for prefix in ("model", "average"):
        tensors = read_tensors(path, prefix)
        assert all(torch.equal(tensors[name], value) for name, value in model.state_dict().items())
    other, fresh = trained()[0], torch.optim.AdamW(trained()[0].parameters(), lr=0.1)
    other.load_state_dict(read_tensors(path, "model"))
    load_optimiser(fresh, read_tensors(path, "optimiser"))
    before, after = optimiser.state_dict()["state"], fresh.state_dict()["state"]
    assert before.keys() == after.keys() and len(before) == 6  # the unused parameter has no state
    for number, state in before.items():
        assert all(torch.equal(torch.as_tensor(state[key]), after[number][key]) for key in state)


def test_tied_weights_are_saved(tmp_path: Path) -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2)})
    model["b"] = model["a"]
    kept = read_tensors(save_checkpoint(tmp_path, {"step": 0}, model), "model")
    assert torch.equal(kept["a.weight"], model["a"].weight) and torch.equal(kept["b.weight"], model["a"].weight)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    model, _ = trained()
    for step in (1, 2, 30):
        save_checkpoint(tmp_path, {"step": step}, model, keep=2)
    assert [read_state(path)["step"] for path in checkpoints(tmp_path)] == [2, 30]


@pytest.mark.parametrize("damage", [b"", b"garbage", None])
def test_a_damaged_checkpoint_is_skipped(tmp_path: Path, damage: bytes | None) -> None:
    model, _ = trained()
    paths = [save_checkpoint(tmp_path, {"step": step}, model) for step in (1, 2)]
    paths[1].write_bytes(paths[1].read_bytes()[:500] if damage is None else damage)
    assert newest_checkpoint(tmp_path) == paths[0]
    with pytest.raises(UserError, match=r"step-00000002\.safetensors' is not a checkpoint"):
        read_state(paths[1])


def corrupt(data: bytes, random: np.random.Generator) -> bytes:
    """Return the data with a bit flipped, a range overwritten, zeroed, cut out or repeated, or the end missing."""
    start, stop = sorted(random.integers(0, len(data) + 1, 2).tolist())
    stop = max(stop, start + 1) if start < len(data) else stop
    kind = random.integers(6)
    if kind == 0:
        at = int(random.integers(len(data)))
        return data[:at] + bytes([data[at] ^ 1 << int(random.integers(8))]) + data[at + 1 :]
    noise = random.integers(0, 256, stop - start, dtype=np.uint8).tobytes()
    middle = {1: noise, 2: bytes(stop - start), 3: b"", 4: data[start:stop] * 2}.get(int(kind), b"")
    return data[:start] if kind == 5 else data[:start] + middle + data[stop:]


def test_no_corruption_is_ever_loaded(tmp_path: Path) -> None:
    """300 random ones, anywhere in the file: each is detected and reported, and the checkpoint before it is used."""
    random, (model, optimiser) = np.random.default_rng(0), trained()
    older, newer = (save_checkpoint(tmp_path, {"step": step}, model, optimiser) for step in (1, 2))
    sound, seen = newer.read_bytes(), []
    check(newer)
    for _ in range(300):
        data = corrupt(sound, random)
        if data == sound:  # a range of zeros that were there
            continue
        newer.write_bytes(data)
        named = []
        assert newest_checkpoint(tmp_path, lambda path, why, named=named: named.append((path, why))) == older
        assert named[0][0] == newer and "damaged" in named[0][1]
        with pytest.raises(UserError, match="damaged"):
            find_checkpoint(newer)
        seen.append(data)
    assert len(seen) > 280


def test_an_unchanged_file_is_read_once_and_a_changed_one_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, reads = save_checkpoint(tmp_path, {"step": 1}, nn.Linear(1, 1)), []
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda own: reads.append(own) or read(own))
    os.utime(path, (0, 10**9))  # not changed just now
    check(path)
    check(path)
    assert len(reads) == 1
    path.write_bytes(read(path)[:-1] + b"?")
    with pytest.raises(UserError, match="damaged"):
        check(path)


def test_every_byte_of_the_header_counts(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, {"step": 1, "checksum": UNKNOWN}, nn.Linear(1, 1))
    sound = path.read_bytes()
    check(path)
    for at in range(len(sound)):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        with pytest.raises(UserError, match="damaged"):
            check(path)


def test_a_checkpoint_without_a_checksum_is_read(tmp_path: Path) -> None:
    path = tmp_path / "step-00000003.safetensors"
    save_file({"model.a": torch.ones(2)}, path, metadata={"vision_mtl": '{"step": 3}'})
    assert newest_checkpoint(tmp_path) == path


def test_a_damaged_checkpoint_set_aside_no_longer_counts(tmp_path: Path) -> None:
    paths = [save_checkpoint(tmp_path, {"step": step}, trained()[0]) for step in (1, 2)]
    set_aside(paths[1])
    assert checkpoints(tmp_path) == paths[:1] and (tmp_path / "step-00000002.safetensors.damaged").exists()


def test_a_checkpoint_is_found_by_run_folder_or_file(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "run" / "checkpoints", {"step": 1}, trained()[0])
    for where in (tmp_path / "run", tmp_path / "run" / "checkpoints", path):
        assert find_checkpoint(where) == path
    with pytest.raises(UserError, match=r"no checkpoint in '.*other'"):
        find_checkpoint(tmp_path / "other")
