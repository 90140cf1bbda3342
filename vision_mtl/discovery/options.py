"""The options of scoring. Importing this file imports neither torch nor timm, so that `--help` appears at once."""

from __future__ import annotations

from dataclasses import dataclass

from vision_mtl.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Score:
    """What is scored after training. The time that it takes does not count as training."""

    images: int = 200
    """Held-out images of each source to score repairs on, spread over its clusters; fewer for pretexts of many damages.
    0: repairs are not scored."""

    def __post_init__(self) -> None:
        if self.images < 0:
            raise UserError(f"score.images must be 0 or more; found {self.images}.")
