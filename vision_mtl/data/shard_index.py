"""The samples of a WebDataset shard: members of a tar file with the same key, by the rule of the webdataset library.

A member's key ends at the first dot of its file name; folders belong to the key, and the rest, in lower case, is the
suffix: `a.b/0001.Depth.PNG` is `depth.png` of `a.b/0001`. Only files count, and of those neither files without a suffix
nor `__NAME__` at the top. The members of a sample follow each other, and each suffix occurs once.
Differs from the library (`tariterators.py`, version 1.0): hidden files and folders (`._0001.jpg`, which macOS adds) are
left out, where the library reads some of them as samples; a key that occurs again later in the shard is an error, where
the library reads two samples; a damaged header is an error, where the library ends the shard there.
"""

from __future__ import annotations

import re
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from vision_mtl.core.errors import UserError

Place = tuple[Path, int, int]  # shard, offset, bytes
HIDDEN = re.compile(r"(^|/)\.(?!\.?(/|\Z))")  # a part that begins with a dot, but for . and ..
METADATA = re.compile(r"__[^/]*__(\Z|/)|(.*/)?__MACOSX(\Z|/)", re.DOTALL)  # of the library, and of macOS's zip files
COMPRESSED = {b"\x1f\x8b": "gunzip", b"BZh": "bunzip2", b"\xfd7z": "unxz", b"\x28\xb5\x2f\xfd": "unzstd"}
BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class ShardIndex:
    """A shard's samples, key -> suffix (with its dot) -> position, and the members that are no part of one.

    `repeated` maps each key that is not unique, and so is not in `samples`, to its members. `is_open` is true without
    the blocks of zeros that end a tar file.
    """

    samples: dict[str, dict[str, Place]] = field(default_factory=dict)
    repeated: dict[str, list[str]] = field(default_factory=dict)
    hidden: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    without_suffix: list[str] = field(default_factory=list)
    is_open: bool = False


def index_shard(shard: Path) -> ShardIndex:
    """Return the index of an uncompressed tar file, from its headers. Raises `UserError` for a damaged file."""
    try:
        with tarfile.open(shard, "r:") as tar:
            members = list(tar)
            end = tar.offset
        is_open = _is_open(shard, end)
    except (tarfile.TarError, OSError, ValueError, OverflowError, EOFError) as error:
        raise UserError(
            f"{str(shard)!r} is not an uncompressed tar file, or is damaged: {error}.{_hint(shard)}"
        ) from error
    index = ShardIndex(is_open=is_open)
    keys: list[str] = []
    for member in members:
        if member.isdir():
            continue
        if not member.isfile():
            index.links.append(member.name)
        elif is_hidden(member.name):
            index.hidden.append(member.name)
        elif (split := split_name(member.name)) is None:
            index.without_suffix.append(member.name)
        else:
            if member.issparse():  # stored without zeros: WebDataset never writes it, and it may expand to terabytes
                raise UserError(f"{str(shard)!r}: {member.name!r} is sparse, it expands to {member.size:,} bytes.")
            _add(index, keys, *split, (shard, member.offset_data, member.size))
    _drop_repeated(index, members)
    return index


def split_name(name: str) -> tuple[str, str] | None:
    """Return (key, suffix with its dot) of a member, or None if its file name has no dot."""
    path = PurePosixPath(name)
    stem, dot, suffix = path.name.partition(".")
    return (str(path.parent / stem), f".{suffix.lower()}") if dot else None


def is_hidden(name: str) -> bool:
    """Return True for hidden files, files in hidden folders, and metadata."""
    return HIDDEN.search(name) is not None or METADATA.match(name) is not None


def _add(index: ShardIndex, keys: list[str], key: str, suffix: str, place: Place) -> None:
    """Add a member; `keys` are those of the runs of members so far."""
    if not keys or keys[-1] != key:
        keys.append(key)
        if key in index.samples:
            index.repeated[key] = []
    members = index.samples.setdefault(key, {})
    if suffix in members:
        index.repeated[key] = []
    members[suffix] = place


def _drop_repeated(index: ShardIndex, members: list[tarfile.TarInfo]) -> None:
    """Move keys that are not unique out of the samples, with the names of their members."""
    for key in index.repeated:
        del index.samples[key]
    for member in members if index.repeated else ():
        split = split_name(member.name) if member.isfile() and not is_hidden(member.name) else None
        if split is not None and split[0] in index.repeated:
            index.repeated[split[0]].append(member.name)


def _is_open(shard: Path, end: int) -> bool:
    """Return True if the file has no end mark at byte `end`, where `tarfile` stopped.

    `tarfile` takes a damaged header for the end, so raises `ValueError` if there is one, or if members follow the mark.
    """
    with shard.open("rb") as file:
        file.seek(end)
        block = file.read(BLOCK)
        if block.count(0) != len(block):
            raise ValueError(f"there is no valid header at byte {end:,}")
        while rest := file.read(1 << 20):
            if rest.count(0) != len(rest):
                raise ValueError(f"more follows its end mark at byte {end:,}, as if tar files had been joined by `cat`")
    return not block


def _hint(shard: Path) -> str:
    if shard.is_dir():
        return f" It is a folder; for the shards in it write 'wds/{shard}/*.tar'."
    try:
        with shard.open("rb") as file:
            start = file.read(4)
    except OSError:
        return ""
    tool = next((tool for magic, tool in COMPRESSED.items() if start.startswith(magic)), None)
    return f" It is compressed: unpack it with {tool}, because images are read from it at random." if tool else ""


def common_suffixes(suffixes: Counter[str]) -> str:
    """Return suffixes with their counts as text, the most frequent first."""
    shown = ", ".join(f"{suffix} ({count:,})" for suffix, count in suffixes.most_common(8))
    return shown + (", ..." if len(suffixes) > 8 else "")
