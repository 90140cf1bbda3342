"""The options of scoring. Importing this file imports neither torch nor timm, so that `--help` appears at once."""

from __future__ import annotations

from dataclasses import dataclass

from vision_mtl.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Score:
    """The number of scored images. The time that scoring takes does not count as training."""

    images: int = 100
    """Held-out images of each source to score repairs on, spread over its clusters; fewer for pretexts of many damages
    or without a repair. 0: repairs are not scored. The folds of discover have discover.num_images instead."""
    validation_images: int = 500
    """Validation images of each task that finetune, joint and add_task score at each evaluation during training, and
    that pretrain and discover compare features on, evenly spread; 0: all. At the end of training with labels, all
    validation images calibrate and all test images are scored."""
    probe_images: int = 500
    """Training images of each task that linear probes are fitted to when pretrain and discover compare features before
    and after training, evenly spread. 0: features are not compared."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 0:
                raise UserError(f"score.{name} must be 0 or more; found {value}.")
