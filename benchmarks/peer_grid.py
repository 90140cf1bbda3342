"""What `peers.py search` tries: eight settings of ours, and eight of each of lightly's SimCLR, VICReg and EMP-SSL.

Equal for both in every setting: resnet18 from random weights, 64-pixel images, AdamW with its weight decay, betas,
clipping, warm-up and cosine (`training/options.py`), crops of at most 4 : 3, half of the views mirrored, a fifth grey.
Each library keeps its own implementation of the rest: lightly's SimCLRViewTransform on PIL images with colour jitter of
half strength and without blur, which its documentation advises for small images; our `contrast` with its default
colours. Projection heads are each library's own: lightly's of SimCLR (hidden width 512) and of VICReg, all of whose
layers have the setting's width; EMP-SSL, for which lightly has none, gets that of VICReg with normalised outputs, as in
the authors' code. The weights within a loss are the defaults, which are the papers' own.

lightly has no loss of SimCLR or VICReg for more than two views. Its maintainers advise to build one from the loss of
pairs (https://github.com/lightly-ai/lightly/issues/1639), so its loss of four views is the mean over the six pairs.

The sign of the coding rate in lightly 1.6's EMPSSLLoss is the opposite of the paper's and of the authors' code: it
makes the coding rate small, and so prefers equal embeddings (-197 against -171 for spread ones, 32 wide). Trained so,
it is a reference (`lightly-empssl-as-is`). In the contest lightly's two terms are added with the paper's signs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

OURS, LIGHTLY = "ours", "lightly"
BATCH = 128  # images a step, where no setting says another number
LARGEST_STRETCH = 4 / 3  # of RandomResizedCrop, which lightly's transform does not let its user change


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One row of the table. The learning rate is stated for 256 images a step."""

    views: int
    view_size: int
    method: Literal["simclr", "vicreg", "empssl"] = "simclr"
    learning_rate: float = 0.01
    smallest_crop: float = 0.3
    temperature: float = 0.2  # of simclr
    batch_size: int = 128
    width: int = 128  # of the embedding

    @property
    def shape(self) -> str:
        """What the time of a step depends on, for example vicreg-4x32-batch128-width512."""
        return f"{self.method}-{self.views}x{self.view_size}-batch{self.batch_size}-width{self.width}"

    @property
    def name(self) -> str:
        """For example vicreg-4x32-batch128-width512-rate0.01-crop0.3; for simclr with its temperature."""
        temperature = f"-temperature{self.temperature:g}" if self.method == "simclr" else ""
        return f"{self.shape}-rate{self.learning_rate:g}-crop{self.smallest_crop:g}{temperature}"


SIMCLR = (
    Setting(views=2, view_size=64),
    Setting(views=2, view_size=64, temperature=0.5),  # lightly's default temperature
    Setting(views=2, view_size=32),
    Setting(views=4, view_size=32),
    Setting(views=4, view_size=32, smallest_crop=0.08),  # lightly's default crop
    Setting(views=4, view_size=32, batch_size=64),
    Setting(views=4, view_size=32, batch_size=64, learning_rate=0.02),
    Setting(views=4, view_size=32, batch_size=64, learning_rate=0.04),
)
VICREG = tuple(
    Setting(method="vicreg", **values)
    for values in (
        {"views": 2, "view_size": 64, "width": 512},
        {"views": 4, "view_size": 32, "width": 512, "batch_size": 64, "learning_rate": 0.04},
        {"views": 2, "view_size": 32, "width": 512},
        {"views": 4, "view_size": 32, "width": 512},
        {"views": 4, "view_size": 32, "width": 512, "smallest_crop": 0.08},
        {"views": 4, "view_size": 32, "width": 512, "batch_size": 64},
        {"views": 4, "view_size": 32, "width": 512, "batch_size": 64, "learning_rate": 0.02},
        {"views": 4, "view_size": 32, "width": 128, "batch_size": 64, "learning_rate": 0.02},
    )
)
EMPSSL = tuple(
    Setting(method="empssl", **values)
    for values in (
        {"views": 4, "view_size": 32, "width": 512, "batch_size": 64, "learning_rate": 0.04},
        {"views": 4, "view_size": 32, "width": 512},
        {"views": 4, "view_size": 32, "width": 512, "batch_size": 64, "learning_rate": 0.02},
        {"views": 4, "view_size": 32, "width": 128, "batch_size": 64, "learning_rate": 0.02},
        {"views": 4, "view_size": 32, "width": 1024},  # the paper's width
        {"views": 8, "view_size": 32, "width": 512, "batch_size": 64, "learning_rate": 0.02},
        {"views": 8, "view_size": 32, "width": 512, "batch_size": 64, "smallest_crop": 0.25},  # the paper's crop
        {"views": 20, "view_size": 32, "width": 512, "batch_size": 32, "learning_rate": 0.02},  # the paper's count
    )
)
OURS_TRIED = (
    Setting(views=4, view_size=32),
    Setting(views=4, view_size=32, batch_size=64),
    Setting(views=4, view_size=32, batch_size=64, learning_rate=0.02),
    Setting(method="empssl", views=4, view_size=32, batch_size=64, learning_rate=0.02),
    Setting(method="empssl", views=4, view_size=32, batch_size=64, learning_rate=0.04),
    Setting(method="empssl", views=4, view_size=32, batch_size=64, learning_rate=0.02, width=512),
    Setting(method="empssl", views=8, view_size=32, batch_size=64, learning_rate=0.02),
    Setting(method="vicreg", views=4, view_size=32, batch_size=64, learning_rate=0.02),
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
        return f"{self.library}-{self.setting.shape}" if self.setting else self.name

    @property
    def batch_size(self) -> int:
        """The number of images a step."""
        return self.setting.batch_size if self.setting else BATCH


def _arms() -> dict[str, Arm]:
    tried = {OURS: OURS_TRIED, LIGHTLY: (*SIMCLR, *VICREG, *EMPSSL)}
    contest = [Arm(f"{library}-{setting.name}", library, setting) for library in tried for setting in tried[library]]
    return {arm.name: arm for arm in (*contest, MIXTURE, DEFAULTS, AS_IS, UNTRAINED)}


MIXTURE = Arm("ours-mixture", OURS)  # repairs the default mixture
DEFAULTS = Arm("lightly-defaults", LIGHTLY)  # SimCLR with its default transform, temperature and SGD
AS_IS = Arm("lightly-empssl-as-is", LIGHTLY)  # EMPSSLLoss with its sign, by the setting AS_IS_SETTING
AS_IS_SETTING = EMPSSL[1]
UNTRAINED = Arm("untrained", "none")  # the random weights that ours starts from
CRITERIA = {"simclr": "nt_xent", "vicreg": "vicreg", "empssl": "coding_rate"}  # our names of the methods' losses
ARMS = _arms()


def our_options(arm: Arm) -> dict[str, Any]:
    """What the arm's config says beside the photographs' one."""
    setting = arm.setting
    if setting is None:
        return {"pretexts": {"grid_mask": None, "decolorise": None, "downsample": None}}
    contrast = {
        "criterion": CRITERIA[setting.method],
        "width": setting.width,
        "views": setting.views,
        "view_size": setting.view_size,
        "smallest_crop": setting.smallest_crop,
        "temperature": setting.temperature,
        "stretch": LARGEST_STRETCH,
    }
    optim = {"learning_rate": setting.learning_rate, "batch_size": setting.batch_size}
    return {"pretexts": {"contrast": contrast}, "optim": optim}


def choose(scores: dict[str, float]) -> dict[str, str]:
    """Library -> its arm of the highest mean score; references are left out. Raises `ValueError` if one is missing."""
    contest = [arm for arm in ARMS.values() if arm.setting is not None]
    missing = [arm.name for arm in contest if arm.name not in scores]
    if missing:
        raise ValueError(f"settings without a score: {', '.join(missing)}")
    own = {library: [arm.name for arm in contest if arm.library == library] for library in (OURS, LIGHTLY)}
    return {library: max(names, key=scores.__getitem__) for library, names in own.items()}
