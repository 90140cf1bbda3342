"""The splits that the parts of a set are named after: the splits of a Hugging Face set, or shards."""

from __future__ import annotations

import re
from collections.abc import Mapping

from vision_mtl.data.findings import Finding
from vision_mtl.data.labels import SPLIT_WORDS
from vision_mtl.data.source import Split

SHOWN = 5  # names given in a message


def split_of(name: str) -> Split | None:
    """Return the split that a name means: its first word if that is one, else its only one, else None.

    >>> split_of("validation"), split_of("imagenet1k-train2012-0003.tar"), split_of("unsupervised")
    ('val', 'train', None)
    """
    words = [word for word in re.findall("[a-z]+", name.lower())]
    if words and words[0] in SPLIT_WORDS:
        return SPLIT_WORDS[words[0]]
    found = {SPLIT_WORDS[word] for word in words if word in SPLIT_WORDS}
    return found.pop() if len(found) == 1 else None


def unnamed_parts(source: str, sizes: Mapping[str, int], what: str, advice: str) -> list[Finding]:
    """Return the warning, if any, that some parts of a set name no split although others do.

    `sizes` maps a part's name to its number of images; `what` says what the parts are, in the plural.
    """
    unnamed = {name: size for name, size in sizes.items() if split_of(name) is None}
    if not unnamed or len(unnamed) == len(sizes):
        return []
    shown = ", ".join(f"{name} ({size:,} images)" for name, size in list(unnamed.items())[:SHOWN])
    more = f", ... ({len(unnamed)} in all)" if len(unnamed) > SHOWN else ""
    text = f"{source}: {what} {shown}{more} name neither train, validation nor test: they are treated like train."
    return [Finding("warning", text, advice, sum(unnamed.values()))]
