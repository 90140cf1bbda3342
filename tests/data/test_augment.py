"""Augmentation: drawn from what an image is, masks beside it, and bad policies named."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import yaml

from vision_mtl.core.errors import UserError
from vision_mtl.data.augment import Augmenter

SHAPE = (48, 64, 3)


def written(*transforms: dict) -> dict:
    steps = [{"p": 1.0, **transform} for transform in transforms]
    return {"transform": {"__class_fullname__": "Compose", "p": 1.0, "transforms": steps}}


def blocks(seed: int = 0, shape: tuple[int, int, int] = SHAPE) -> np.ndarray:
    """Large black and white cells, so that most pixels lie far from an edge."""
    cells = np.random.default_rng(seed).integers(0, 2, (shape[0] // 8, shape[1] // 8), np.uint8) * 200 + 20
    return np.repeat(np.kron(cells, np.ones((8, 8), np.uint8))[..., None], shape[2], axis=2)


def test_none_changes_nothing() -> None:
    image, mask = blocks(), blocks()[..., 0]
    found, (same,) = Augmenter("t", "none", SHAPE).apply(image, [mask], 0, 0, 0)
    assert np.array_equal(found, image) and np.array_equal(same, mask)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("policy", ["light", "mirror"])
def test_draws_follow_the_image_and_nothing_else(policy: str, channels: int) -> None:
    shape = (48, 64, channels)
    image = blocks(shape=shape)
    before = image.copy()
    first, again = Augmenter("t", policy, shape), Augmenter("t", policy, shape)
    alone = [first.apply(image, [], 7, 2, index)[0] for index in range(40)]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda index: again.apply(image, [], 7, 2, index)[0], reversed(range(40))))
    assert all(np.array_equal(a, b) for a, b in zip(alone, reversed(together), strict=True))
    assert np.array_equal(image, before)
    assert all(found.shape == shape and found.dtype == np.uint8 for found in alone)
    assert len({found.tobytes() for found in alone}) == 40
    for other in ((8, 2, 0), (7, 3, 0)):
        assert not np.array_equal(first.apply(image, [], *other)[0], alone[0])
    assert not np.array_equal(Augmenter("u", policy, shape).apply(image, [], 7, 2, 0)[0], alone[0])


def test_light_is_light_and_never_mirrors() -> None:
    image = np.zeros(SHAPE, np.uint8)
    image[18:30, 4:20] = 200  # a block left of the middle
    flipped = {"light": 0, "mirror": 0}
    for policy in flipped:
        augmenter = Augmenter("t", policy, SHAPE)
        for index in range(100):
            found, _ = augmenter.apply(image, [], 0, 0, index)
            bright = found[..., 0] > 100
            assert 0.7 < bright.sum() / 192 < 1.4
            flipped[policy] += np.nonzero(bright)[1].mean() > 32
    assert flipped["light"] == 0 and 35 <= flipped["mirror"] <= 65


@pytest.mark.parametrize("policy", ["light", "mirror", "rotate"])
def test_masks_follow_the_image(policy: str) -> None:
    turn = written({"__class_fullname__": "Affine", "rotate": [30, 40], "translate_percent": [0.1, 0.2]})
    augmenter = Augmenter("t", turn if policy == "rotate" else policy, SHAPE)
    for index in range(30):
        image = blocks(index)
        mask = (image[..., 0] > 100).astype(np.uint8)
        changed, (after, twice) = augmenter.apply(image, [mask, mask], 0, 0, index)
        assert np.array_equal(after, twice) and set(np.unique(after)) <= {0, 1, 255}
        seen = after != 255
        assert seen.all() == (policy != "rotate")
        agree = (changed[..., 0][seen] > changed.max() / 2) == after[seen]
        assert agree.mean() > 0.93  # the others are the edges that interpolation blurs


def test_filled_pixels_carry_no_class_whatever_the_policy_says() -> None:
    move = {"__class_fullname__": "Affine", "translate_px": {"x": [16, 16], "y": [0, 0]}, "fill_mask": 0.0}
    inner = {"__class_fullname__": "OneOf", "transforms": [{**move, "p": 1.0}]}
    _, (mask,) = Augmenter("t", written(inner), SHAPE).apply(blocks(), [np.ones(SHAPE[:2], np.uint8)], 0, 0, 0)
    assert (mask[:, :16] == 255).all() and (mask[:, 16:] == 1).all()


@pytest.mark.parametrize("form", ["yaml", "json", "mapping"])
def test_a_policy_of_the_library_in_its_own_words(form: str, tmp_path: Path) -> None:
    import albumentations

    made = albumentations.Compose([albumentations.VerticalFlip(p=1.0), albumentations.ColorJitter(p=0.0)])
    text = json.dumps(albumentations.to_dict(made))
    policy: object = json.loads(text)
    if form != "mapping":
        policy = tmp_path / f"policy.{form}"
        policy.write_text(text if form == "json" else yaml.safe_dump(json.loads(text)))
        policy = str(policy)
    image = blocks()
    assert np.array_equal(Augmenter("t", policy, SHAPE).apply(image, [], 0, 0, 0)[0], image[::-1])


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (written({"__class_fullname__": "Flop"}), "names 'Flop', which albumentations .* lacks"),
        (
            written({"__class_fullname__": "HorizontalFlip", "p": 2}),
            "is refused by .*less than or equal",
        ),
        (written({"__class_fullname__": "Affine", "rotat": 3}), "is refused by albumentations: .*'rotat'"),
        (written({"__class_fullname__": "RandomCrop", "height": 8, "width": 8}), r"made uint8 of shape \(8, 8, 3\)"),
        (written({"__class_fullname__": "Normalize"}), r"made float32 of shape \(48, 64, 3\)"),
        ({"steps": []}, "must be what albumentations.to_dict gives"),
        ("lost.yaml", "cannot be read: .*No such file"),
    ],
)
def test_bad_policies_are_named(policy: object, words: str) -> None:
    with pytest.raises(UserError, match=r"(?s)task 'cars': the augmentation '.*' " + words):
        Augmenter("cars", policy, SHAPE)


def test_grey_images_and_a_policy_for_colour() -> None:
    with pytest.raises(UserError, match=r"task 'digits': .* failed on an image of shape \(28, 28, 1\)"):
        Augmenter("digits", written({"__class_fullname__": "ChannelDropout"}), (28, 28, 1))


@pytest.mark.slow
def test_the_import_is_late_quiet_and_asks_no_network() -> None:
    code = (
        "import sys, socket; socket.socket.connect = lambda *_: sys.exit('network'); "
        "from vision_mtl.data.augment import Augmenter; assert 'albumentations' not in sys.modules; "
        "Augmenter('t', 'none', (8, 8, 3)); assert 'albumentations' not in sys.modules; "
        "Augmenter('t', 'mirror', (8, 8, 3))"
    )
    environment = {k: v for k, v in os.environ.items() if k != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], capture_output=True,
                          text=True, env=environment)  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
