"""The splits of a study's runs: runs of the same images must have the same splits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vision_mtl.core.errors import UserError
from vision_mtl.core.run import RESULT
from vision_mtl.study.plan import Plan


def check_splits(plan: Plan, folder: Path, opened: Mapping[str, Any]) -> None:
    """Raise `UserError` if runs of the same sources have different splits.

    `opened` is the summary of the images that the study opened. Runs from before `split_hash` was recorded are not
    compared.
    """
    known: dict[tuple[str, ...], tuple[str, str]] = {}  # sources -> the hash and where it was found
    places = {"the study": opened} | {
        node.folder: json.loads((folder / node.folder / RESULT).read_text("utf-8")).get("data", {})
        for node in plan.nodes.values()
    }
    for place, data in places.items():
        if "split_hash" not in data:
            continue
        sources = tuple(sorted(data["sources"]))
        splits, first = known.setdefault(sources, (data["split_hash"], place))
        if splits != data["split_hash"]:
            raise UserError(
                f"the splits differ: {first} has split_hash {splits}, {place} has {data['split_hash']}, "
                f"for the images of {', '.join(sources)}. Either images were added or removed after the first runs: "
                "start the study in a new folder. Or an arm has its own options of data: give all arms the same."
            )
