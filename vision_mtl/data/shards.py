"""Writes WebDataset shards: tar files with a source's images and labels, for `wds/PATTERN` and other readers.

A sample is `KEY.EXT`, the bytes of the image file (PNG for a source without files), with its label columns in
`KEY.json`, or in `KEY.cls` if there is only one; `KEY.group` names its group. `index.json` maps each KEY to its file.
Aizman et al., 2020, https://arxiv.org/abs/2001.01252. Shards are named by split, so that readers get the same splits.
The same images and labels give the same bytes.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vision_mtl.core.errors import UserError
from vision_mtl.core.files import atomic_write_json, disk_error
from vision_mtl.core.text import valid_text
from vision_mtl.data import tiff
from vision_mtl.data.assemble import LABEL_FROM, list_source, load_source
from vision_mtl.data.decode import FORMATS, SUFFIXES
from vision_mtl.data.depth import is_deep
from vision_mtl.data.findings import Findings
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import Pool
from vision_mtl.data.sample_labels import GROUP
from vision_mtl.data.source import SPLITS, Item, Source, holds_files
from vision_mtl.data.store import Settings

INDEX = "index.json"
FORMAT_SUFFIXES = {  # Pillow's names of formats
    "JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "TIFF": ".tif", "GIF": ".gif", "BMP": ".bmp",
    "DIB": ".dib", "PPM": ".ppm", "JPEG2000": ".jp2", "AVIF": ".avif",
}  # fmt: skip
BLOCK = 512  # bytes of a tar header, and the multiple that members are padded to
Report = Callable[[str, int, int], None]  # (what, done, total)


@dataclass(frozen=True)
class Shard:
    """A written shard: its file, number of samples and size in bytes."""

    path: Path
    num_samples: int
    num_bytes: int


def write_shards(
    pool: Pool,
    data: Data,
    tasks: Mapping[str, Task],
    settings: Settings,
    folder: Path,
    *,
    max_bytes: int,
    report: Report | None = None,
) -> list[Shard]:
    """Write the pool's only source to `folder/SPLIT-NUMBER.tar`; a shard exceeds `max_bytes` only by a single sample.

    Raises `UserError` for several sources, a dense task (shards hold no masks), a `folder` that is not empty, or a full
    disk.
    """
    shown = _only_source(pool, tasks, folder)
    given = [*(data.unlabelled or []), *(task.source for task in tasks.values())]
    name = next(name for name in given if valid_text(name) == shown)
    listed = list_source(name, data, tasks, Findings())
    source, items = listed.source, load_source(listed, data, settings, Findings(), None).items
    split_of = {identity: int(split) for identity, split in zip(pool.identities, pool.split, strict=True)}
    as_text = _fit_text_files(items)
    splits = [split_of.get(f"{shown}::{item.identity}") for item in items]
    by_split = {s: [i for i, of in zip(items, splits, strict=True) if of == n] for n, s in enumerate(SPLITS)}
    total, done, shards, index = sum(len(found) for found in by_split.values()), 0, [], {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for split, own in by_split.items():
            for number, samples in enumerate(_in_shards(source, own, max_bytes, as_text)):
                path = folder / f"{split}-{number:06d}.tar"
                index[path.name] = {key: item.identity for key, item, _ in samples}
                shards.append(_write(path, [member for *_, members in samples for member in members], len(samples)))
                done += len(samples)
                if report is not None:
                    report("writing shards", done, total)
    except OSError as error:
        raise disk_error(folder, max_bytes, error) from error
    atomic_write_json(folder / INDEX, index)
    return shards


def _only_source(pool: Pool, tasks: Mapping[str, Task], folder: Path) -> str:
    if len(pool.sources) > 1:
        raise UserError(
            f"data.to_shards writes one source at a time; found {len(pool.sources)}: {', '.join(pool.sources)}. "
            "Give one with --data.unlabelled or --tasks.NAME.source, and a separate folder for each."
        )
    if dense := [name for name, task in tasks.items() if label_kind(task.kind).is_dense]:
        raise UserError(f"data.to_shards: shards hold no masks; found task {dense[0]!r} of kind dense. Leave it out.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"data.to_shards {str(folder)!r} must be a new or empty folder; choose another.")
    return pool.sources[0]


Member = tuple[str, bytes]  # name in the tar file, content


def _in_shards(
    source: Source, items: Sequence[Item], max_bytes: int, as_text: bool
) -> Iterator[list[tuple[str, Item, list[Member]]]]:
    """Yield the samples (key, item, members) of one shard after the other; only one shard is in memory."""
    shard: list[tuple[str, Item, list[Member]]] = []
    size = 0
    for number, item in enumerate(items):
        key = f"{number:08d}"  # not the file's name: readers take everything after the first dot as the suffix
        members = _members(key, source, item, as_text)
        own = sum(_tar_bytes(content) for _, content in members)
        if shard and size + own > max_bytes:
            yield shard
            shard, size = [], 0
        shard.append((key, item, members))
        size += own
    if shard:
        yield shard


def _fit_text_files(items: Sequence[Item]) -> bool:
    """Return True if `KEY.cls` can hold all labels: readers strip text files, and know columns by the suffix."""
    columns = {column for item in items for column in item.labels}
    return len(columns) == 1 and all(
        v and v == v.removeprefix("\ufeff").strip() for item in items for v in item.labels.values()
    )


def _members(key: str, source: Source, item: Item, as_text: bool) -> list[Member]:
    suffix, content = _image(source, item)
    found = [(f"{key}{suffix}", content), *_label_files(key, _label_columns(item), as_text)]
    if item.group is not None:
        found.append((f"{key}{GROUP}", item.group.encode()))
    return found


def _label_columns(item: Item) -> dict[str, str]:
    """Return column -> label. Raises `UserError` if a task with `label_from` has the name of another column."""
    found: dict[str, str] = {}
    for column, value in item.labels.items():
        name = column.removeprefix(LABEL_FROM)
        if found.setdefault(name, value) != value:
            raise UserError(
                f"data.to_shards: {item.identity!r} has {name} {found[name]!r} in a column of the source, but "
                f"{value!r} by label_from of task {name!r}. Give the task another name."
            )
    return found


def _label_files(key: str, labels: Mapping[str, str], as_text: bool) -> list[Member]:
    if as_text and labels:
        return [(f"{key}.cls", next(iter(labels.values())).encode())]
    return [(f"{key}.json", json.dumps(labels, ensure_ascii=False).encode())] if labels else []


def _image(source: Source, item: Item) -> tuple[str, bytes]:
    """Return (suffix, bytes) of the image file, or of the pixels as PNG, which is lossless."""
    if holds_files(source):
        content = source.encoded(item)
        suffix = "" if item.path is None else item.path.suffix.lower()
        if suffix := suffix if suffix in SUFFIXES else _format_suffix(content):
            return suffix, content
    pixels = source.read(item)
    if is_deep(pixels):
        raise UserError(f"data.to_shards: {item.identity!r} has more than 8 bits and is not a file; leave it out.")
    encoded = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(encoded, "PNG")
    return ".png", encoded.getvalue()


def _format_suffix(content: bytes) -> str:
    """Return the suffix of an image file's format, or "" if Pillow does not know it."""
    if content[:4] in tiff.MAGIC:
        return ".tif"  # of any number of bands, which Pillow may not know
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            return FORMAT_SUFFIXES.get(str(image.format), "")
    except (OSError, ValueError):
        return ""


def _tar_bytes(content: bytes) -> int:
    return BLOCK + -(-len(content) // BLOCK) * BLOCK


def _write(path: Path, members: Sequence[Member], num_samples: int) -> Shard:
    """Write a tar file under a temporary name, then rename it."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, content in members:
                about = tarfile.TarInfo(name)  # without time and owner, so that equal content gives equal bytes
                about.size = len(content)
                tar.addfile(about, io.BytesIO(content))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return Shard(path, num_samples, path.stat().st_size)
