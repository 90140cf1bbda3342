"""`wds/PATTERN`: WebDataset shards, tar files whose members share a stem: `0001.jpg`, `0001.cls`, `0001.json`.

PATTERN may contain braces (`train-{000..099}.tar`) and wildcards. `.cls` is a class, `.txt` a text (column `txt`),
`.json` a mapping whose text, number and boolean entries are label columns, `.group` the group. Aizman et al., 2020,
https://arxiv.org/abs/2001.01252. Shards are indexed by their headers and then read at random: once into a decoded
store, or during training if they are streamed. `--stage data --data.to_shards FOLDER` writes such shards.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import tarfile
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
from braceexpand import UnbalancedBracesError, braceexpand  # type: ignore[attr-defined]  # not in its stub

from vision_mtl.core.errors import UserError
from vision_mtl.core.text import valid_text
from vision_mtl.data.decode import MAX_FILE_BYTES, SUFFIXES, decode_bytes, read_at_most, read_error
from vision_mtl.data.files import missing_path
from vision_mtl.data.labels import SPLIT_WORDS
from vision_mtl.data.source import SOURCES, Item

Place = tuple[Path, int, int]  # shard, offset, bytes
LABEL_BYTES = 1 << 20  # largest label file
LABEL_SUFFIXES = (".cls", ".txt", ".json")


@SOURCES.register("wds")
class Wds:
    """All samples of all shards; a shard whose name begins with train, val or test gives the split."""

    def __init__(self, rest: str, root: Path) -> None:
        self.rest = rest

    @cached_property
    def version(self) -> str:
        """A hash of the shards' names, sizes and times."""
        stats = [(shard.name, shard.stat().st_size, shard.stat().st_mtime_ns) for shard in self._shards]
        return "1 " + hashlib.blake2b(repr(stats).encode(), digest_size=8).hexdigest()

    def items(self) -> list[Item]:
        found = []
        for shard in self._shards:
            word = shard.name.replace("_", "-").replace(".", "-").partition("-")[0].lower()
            samples = self._index[shard]
            for stem, members in samples.items():
                if _image(members) is not None:
                    labels = _labels(members, f"{shard}:{stem}")
                    group = _text(members[".group"], f"{shard}:{stem}.group") if ".group" in members else None
                    split = SPLIT_WORDS.get(word)
                    found.append(Item(valid_text(f"{shard.name}:{stem}"), labels=labels, split=split, group=group))
        if not found:
            raise UserError(f"wds/{self.rest}: {len(self._shards)} shards contain no image.")
        return found

    def encoded(self, item: Item) -> bytes:
        shard, _, stem = item.identity.partition(":")
        path = self._by_name[shard]
        place = _image(self._index[path][stem])
        if place is None:
            raise ValueError(f"{item.identity} has no image")  # items() does not list these
        try:
            return _bytes(place)
        except OSError as error:
            raise read_error(path, error) from error

    def read(self, item: Item) -> np.ndarray:
        return decode_bytes(self.encoded(item), item.identity)

    @cached_property
    def _by_name(self) -> dict[str, Path]:
        return {valid_text(shard.name): shard for shard in self._shards}

    @cached_property
    def _shards(self) -> list[Path]:
        try:
            patterns = list(braceexpand(self.rest))
        except UnbalancedBracesError as error:
            raise UserError(f"wds/{self.rest}: the braces do not match.") from error
        found = []
        for pattern in patterns:
            matches = sorted(glob.glob(os.path.expanduser(pattern)))
            if not matches:
                raise missing_path(Path(pattern).expanduser())
            found += [Path(match) for match in matches]
        if len({shard.name for shard in found}) < len(found):
            raise UserError(f"wds/{self.rest}: two shards have the same file name, which must be unique.")
        return found

    @cached_property
    def _index(self) -> dict[Path, dict[str, dict[str, Place]]]:
        """Shard -> sample's stem -> member's suffix -> position of its bytes."""
        return {shard: _index_shard(shard) for shard in self._shards}


def _index_shard(shard: Path) -> dict[str, dict[str, Place]]:
    try:
        with tarfile.open(shard, "r:") as tar:
            members = [member for member in tar if member.isfile()]
    except (tarfile.TarError, OSError) as error:
        raise UserError(f"{str(shard)!r} is not an uncompressed tar file, or is damaged: {error}.") from error
    samples: dict[str, dict[str, Place]] = {}
    for member in members:
        if member.issparse():  # stored without zeros: WebDataset never writes it, and it may expand to terabytes
            raise UserError(f"{str(shard)!r}: {member.name!r} is sparse, it expands to {member.size:,} bytes.")
        path = PurePosixPath(member.name)
        stem, _, suffix = path.name.partition(".")  # WebDataset: the suffix begins at the first dot
        key = valid_text(str(path.parent / stem))
        samples.setdefault(key, {})[f".{suffix.lower()}"] = (shard, member.offset_data, member.size)
    return samples


def _image(members: dict[str, Place]) -> Place | None:
    return next(
        (place for suffix, place in sorted(members.items()) if PurePosixPath(f"x{suffix}").suffix in SUFFIXES), None
    )


def _bytes(place: Place) -> bytes:
    shard, offset, size = place
    return read_at_most(shard, offset, min(size, MAX_FILE_BYTES + 1))


def _labels(members: dict[str, Place], where: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for suffix, place in members.items():
        if suffix not in LABEL_SUFFIXES:
            continue
        text = _text(place, where + suffix)
        try:
            values = json.loads(text) if suffix == ".json" else {suffix[1:]: text}
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}{suffix} is not JSON: {error}.") from error
        if isinstance(values, dict):
            found |= {
                key: str(value)
                for key, value in values.items()
                if isinstance(value, str | int | float | bool) and value != ""
            }
    return found


def _text(place: Place, where: str) -> str:
    if place[2] > LABEL_BYTES:
        raise UserError(f"{where} has {place[2]:,} bytes; a label has {LABEL_BYTES:,} at most.")
    try:
        return _bytes(place).decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 text: {error}.") from error
