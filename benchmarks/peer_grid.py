"""What `peers.py search` tries: one table of settings, each trained by us and by lightly.

Equal for both in every setting: resnet18 from random weights, 64-pixel images, batches of 128 images, AdamW with its
weight decay, betas, clipping, warm-up and cosine (`training/options.py`), crops of at most 4 : 3, half of the views
mirrored, a fifth grey. Each library keeps its own implementation of the rest: lightly's SimCLRViewTransform on PIL
images with colour jitter of half strength and without blur, which its documentation advises for small images; our
`contrast` with its default colours. Projection heads and losses are each library's own.

lightly has no SimCLR loss for more than two views. Its maintainers advise to build one from the loss of pairs
(https://github.com/lightly-ai/lightly/issues/1639), so its loss of four views is the mean of NTXentLoss over the six
pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

OURS, LIGHTLY = "ours", "lightly"
LARGEST_STRETCH = 4 / 3  # of RandomResizedCrop, which lightly's transform does not let its user change


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One row of the table. The learning rate is stated for 256 images a step."""

    views: int
    view_size: int
    learning_rate: float = 0.01
    smallest_crop: float = 0.3
    temperature: float = 0.2

    @property
    def name(self) -> str:
        """For example 4x32-rate0.01-crop0.3-temperature0.2."""
        return (
            f"{self.views}x{self.view_size}-rate{self.learning_rate:g}-crop{self.smallest_crop:g}"
            f"-temperature{self.temperature:g}"
        )


GRID = (
    Setting(views=2, view_size=64),
    Setting(views=2, view_size=64, learning_rate=0.004),
    Setting(views=2, view_size=64, smallest_crop=0.08),  # lightly's default crop
    Setting(views=2, view_size=64, temperature=0.5),  # lightly's default temperature
    Setting(views=2, view_size=32),
    Setting(views=4, view_size=64),
    Setting(views=4, view_size=32),
    Setting(views=4, view_size=32, learning_rate=0.004),
    Setting(views=4, view_size=32, smallest_crop=0.08),
    Setting(views=4, view_size=32, temperature=0.5),
)


@dataclass(frozen=True)
class Arm:
    """A setting trained by one library; without a setting, a reference that cannot be chosen."""

    name: str
    library: str
    setting: Setting | None = None

    @property
    def cost(self) -> str:
        """The name of what a step costs: arms that differ in numbers only cost the same."""
        return f"{self.library}-{self.setting.views}x{self.setting.view_size}" if self.setting else self.name


def _arms() -> dict[str, Arm]:
    contest = [Arm(f"{library}-{setting.name}", library, setting) for library in (OURS, LIGHTLY) for setting in GRID]
    return {arm.name: arm for arm in (*contest, MIXTURE, DEFAULTS, UNTRAINED)}


MIXTURE = Arm("ours-mixture", OURS)  # repairs the default mixture
DEFAULTS = Arm("lightly-defaults", LIGHTLY)  # SimCLR with its default transform, temperature and SGD
UNTRAINED = Arm("untrained", "none")  # the random weights that ours starts from
ARMS = _arms()


def our_options(arm: Arm) -> dict[str, Any]:
    """What the arm's config says beside the photographs' one."""
    setting = arm.setting
    if setting is None:
        return {"pretexts": {"grid_mask": None, "decolorise": None, "downsample": None}}
    contrast = {
        "views": setting.views,
        "view_size": setting.view_size,
        "smallest_crop": setting.smallest_crop,
        "temperature": setting.temperature,
        "stretch": LARGEST_STRETCH,
    }
    return {"pretexts": {"contrast": contrast}, "optim": {"learning_rate": setting.learning_rate}}


def choose(scores: dict[str, float]) -> dict[str, str]:
    """Library -> its arm of the highest mean score; references are left out. Raises `ValueError` if one is missing."""
    contest = [arm for arm in ARMS.values() if arm.setting is not None]
    missing = [arm.name for arm in contest if arm.name not in scores]
    if missing:
        raise ValueError(f"settings without a score: {', '.join(missing)}")
    own = {library: [arm.name for arm in contest if arm.library == library] for library in (OURS, LIGHTLY)}
    return {library: max(names, key=scores.__getitem__) for library, names in own.items()}
