"""`wds/PATTERN`: WebDataset shards, tar files whose members share a key: `0001.jpg`, `0001.cls`, `0001.json`.

PATTERN may contain braces (`train-{000..099}.tar`) and wildcards. `.cls` is a class, `.txt` a text (column `txt`),
`.json` a mapping whose text, number and boolean entries are label columns, `.group` the group. Option `image` chooses
one of several pictures by its suffix (`jpg`, `depth.png`). Aizman et al., 2020, https://arxiv.org/abs/2001.01252.
Shards are indexed by their headers and then read at random: once into a decoded store, or during training if they are
streamed. `--stage data --data.to_shards FOLDER` writes such shards.
"""

from __future__ import annotations

import glob
import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
from braceexpand import UnbalancedBracesError, braceexpand  # type: ignore[attr-defined]  # not in its stub

from vision_mtl.core.errors import UserError, unknown
from vision_mtl.core.text import valid_text
from vision_mtl.data.decode import MAX_FILE_BYTES, SUFFIXES, decode_bytes, read_at_most, read_error
from vision_mtl.data.files import missing_path
from vision_mtl.data.findings import Finding
from vision_mtl.data.sample_labels import GROUP, LABEL_SUFFIXES, LabelReader
from vision_mtl.data.shard_index import Place, ShardIndex, common_suffixes, index_shard
from vision_mtl.data.source import SOURCES, Item
from vision_mtl.data.split_names import split_of, unnamed_parts

SHOWN = 3  # samples or members named in a message


@SOURCES.register("wds")
class Wds:
    """All samples of all shards; the word train, val or test in a shard's name gives the split."""

    has_columns = True

    def __init__(self, rest: str, root: Path, image: str | None = None) -> None:
        self.rest, self.image = rest, None if image is None else f".{image.lower().removeprefix('.')}"
        self.findings: list[Finding] = []
        self.unusable: dict[str, str] = {}

    @cached_property
    def version(self) -> str:
        """A hash of the shards' names, sizes and times, and of the chosen image."""
        stats = [(shard.name, shard.stat().st_size, shard.stat().st_mtime_ns) for shard in self._shards]
        return "1 " + hashlib.blake2b(repr(stats).encode(), digest_size=8).hexdigest() + (self.image or "")

    def items(self) -> list[Item]:
        return [item for item, _ in self._listed.values()]

    def encoded(self, item: Item) -> bytes:
        place = self._listed[item.identity][1]
        try:
            return _bytes(place)
        except OSError as error:
            raise read_error(place[0], error) from error

    def read(self, item: Item) -> np.ndarray:
        return decode_bytes(self.encoded(item), item.identity)

    @cached_property
    def _listed(self) -> dict[str, tuple[Item, Place]]:
        """Identity -> item and the position of its image; fills `findings`."""
        indices = self._indices()
        pictures = _Pictures(f"wds/{self.rest}", self.image)
        reader = LabelReader(_bytes)
        found: dict[str, tuple[Item, Place]] = {}
        sizes: Counter[str] = Counter()
        for shard, index in indices.items():
            name = self._shards[shard]
            for key, members in index.samples.items():
                where = valid_text(f"{name}:{key}")
                place = pictures.choose(where, members)
                if place is not None:
                    labels, group = reader.read(members, where)
                    found[where] = Item(where, labels=labels, split=split_of(name), group=group), place
                    sizes[name] += 1
        advice = "To leave them out, give a pattern without them; else rename them, or links to them."
        self.findings += [*pictures.findings(), *reader.findings(f"wds/{self.rest}"), *self._left_out(indices)]
        self.findings += unnamed_parts(f"wds/{self.rest}", sizes, "shards", advice)
        self.unusable |= reader.unusable
        if not found and not any(finding.severity == "error" for finding in self.findings):
            raise UserError(f"wds/{self.rest}: {len(self._shards)} shards contain no image.")
        return found

    @cached_property
    def _shards(self) -> dict[Path, str]:
        """Each shard's name in identities: that of its file, or if two have the same, with the folders that differ."""
        found = [match for pattern in self._patterns() for match in _matches(pattern)]
        names = [shard.name for shard in found]
        if len(set(names)) < len(names):
            base = Path(os.path.commonpath([shard.absolute().parent for shard in found]))
            names = [shard.absolute().relative_to(base).as_posix() for shard in found]
        if doubled := sorted({str(shard) for shard, name in zip(found, names, strict=True) if names.count(name) > 1}):
            raise UserError(f"wds/{self.rest} names a shard twice: {', '.join(doubled[:SHOWN])}.")
        return dict(zip(found, names, strict=True))

    def _patterns(self) -> list[str]:
        if Path(self.rest).expanduser().exists():  # a path with braces or brackets in it
            return [self.rest]
        try:
            return list(braceexpand(self.rest))
        except UnbalancedBracesError as error:
            raise UserError(f"wds/{self.rest}: the braces do not match.") from error

    def _indices(self) -> dict[Path, ShardIndex]:
        found = {}
        for shard in self._shards:
            try:
                found[shard] = index_shard(shard)
            except UserError as error:
                self.findings.append(Finding("error", str(error)))
        return found

    def _left_out(self, indices: dict[Path, ShardIndex]) -> list[Finding]:
        """Return what the shards hold besides samples."""
        name, found = f"wds/{self.rest}", []
        repeated = [
            f"{self._shards[shard]}:{key} ({_names(members)})"
            for shard, index in indices.items()
            for key, members in index.repeated.items()
        ]
        if repeated:
            text = f"{name}: keys that repeat in their shard: {len(repeated)}, for example {_some(repeated)}."
            advice = (
                "A key is the file name up to its first dot, each of its suffixes occurs once, and its members follow "
                "each other: rename the files, or write the shard with `tar --sort=name`."
            )
            found.append(Finding("error", text, advice, len(repeated)))
        if links := [member for index in indices.values() for member in index.links]:
            advice = "To include them, write the shard with `tar --dereference --hard-dereference`."
            text = f"{name}: links and devices are not read: {len(links)}, for example {_some(links)}."
            found.append(Finding("warning", text, advice, len(links)))
        for shard in (shard for shard, index in indices.items() if index.is_open):
            text = f"{str(shard)!r} has no end mark; it may have been cut off between two files."
            found.append(Finding("warning", text))
        for what, attribute in (("hidden files", "hidden"), ("files without a suffix", "without_suffix")):
            if members := [member for index in indices.values() for member in getattr(index, attribute)]:
                text = f"{name}: {what} are left out: {len(members)}, for example {_some(members)}."
                found.append(Finding("note", text, images=len(members)))
        return found


class _Pictures:
    """Chooses each sample's image: the member with the suffix `chosen`, or else the only one that is a picture."""

    def __init__(self, source: str, chosen: str | None) -> None:
        self.source, self.chosen = source, chosen
        self.several: dict[str, list[str]] = {}  # sample -> its pictures' suffixes
        self.absent: list[str] = []  # samples without this image
        self.columns: dict[str, Counter[str]] = {}  # suffix without its format -> suffixes of samples with one picture
        self.seen: Counter[str] = Counter()  # all suffixes
        self.unread: Counter[str] = Counter()

    def choose(self, where: str, members: dict[str, Place]) -> Place | None:
        """Return the position of a sample's image, or None if it has none or several."""
        pictures = [suffix for suffix in members if PurePosixPath(f"x{suffix}").suffix in SUFFIXES]
        self.seen.update(members.keys())  # `update` would add a mapping's values
        taken = self.chosen if self.chosen in members else None
        if self.chosen is None and len(pictures) == 1:
            taken = pictures[0]
            self.columns.setdefault(taken.rpartition(".")[0], Counter())[taken] += 1
        elif self.chosen is None and pictures:
            self.several[where] = pictures
        elif taken is None:
            self.absent.append(f"{where} ({_names(members)})")
        self.unread.update(suffix for suffix in members if suffix not in (taken, GROUP, *LABEL_SUFFIXES))
        return None if taken is None else members[taken]

    def findings(self) -> list[Finding]:
        """Return what is wrong with the samples' images. Raises `UserError` if no sample has the chosen suffix."""
        if self.chosen is not None and self.chosen not in self.seen:
            raise unknown(f"image suffix of {self.source}", self.chosen[1:], [suffix[1:] for suffix in self.seen])
        found = []
        if self.several:
            shown = [f"{where} ({_names(pictures)})" for where, pictures in self.several.items()]
            text = f"{self.source}: samples with several images: {len(shown)}, for example {_some(shown)}."
            found.append(Finding("error", text, _advice(next(iter(self.several.values()))), len(shown)))
        elif len(self.columns) > 1:
            suffixes: Counter[str] = sum(self.columns.values(), Counter())
            text = f"{self.source}: the samples' images have different suffixes: {common_suffixes(suffixes)}."
            found.append(Finding("error", text, _advice(list(suffixes)), suffixes.total()))
        if self.absent:
            kind = "an image" if self.chosen is None else self.chosen[1:]
            text = f"{self.source}: samples without {kind} are left out: {len(self.absent)}, {_some(self.absent)}."
            found.append(Finding("warning", text, images=len(self.absent)))
        if self.unread and not self.several:
            text = f"{self.source}: members with these suffixes are not read: {common_suffixes(self.unread)}."
            found.append(Finding("note", text))
        return found


def _advice(suffixes: list[str]) -> str:
    names = " or ".join(suffix[1:] for suffix in suffixes[:4])
    return (
        f"Choose with --tasks.NAME.image (for images without labels --data.image) {names}. If these are parts of file "
        "names, rename the files: a suffix begins at the first dot."
    )


def _names(members: Iterable[str]) -> str:
    """Return the members of one sample as text."""
    names = [name.removeprefix(".") for name in members]
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _matches(pattern: str) -> list[Path]:
    path = Path(pattern).expanduser()
    if path.exists():
        return [path]
    folder = next((parent for parent in path.parents if parent.exists()), Path())  # its name may contain brackets
    matches = sorted(glob.glob(os.path.join(glob.escape(str(folder)), path.relative_to(folder))))
    if not matches:
        raise missing_path(path)
    return [Path(match) for match in matches]


def _bytes(place: Place) -> bytes:
    shard, offset, size = place
    return read_at_most(shard, offset, min(size, MAX_FILE_BYTES + 1))
