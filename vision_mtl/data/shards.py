"""Writing WebDataset shards: a source's images and labels as tar files that `wds/PATTERN` and other readers stream.

A sample is `KEY.EXT`, the image file's own bytes (PNG where the source has no file), with its label columns in
`KEY.json`, or in `KEY.cls` where there is one only; `KEY.group` names its group. `index.json` says which KEY was which
file. Aizman et al., 2020, https://arxiv.org/abs/2001.01252. Shards are named by side, so whoever reads them holds the
same images out. The same images and labels give the same bytes.
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
from vision_mtl.data.assemble import LABEL_FROM, load_source
from vision_mtl.data.decode import unless_unreadable
from vision_mtl.data.label_kinds import label_kind
from vision_mtl.data.options import Data, Task
from vision_mtl.data.pool import Pool
from vision_mtl.data.source import SPLITS, Item, Source, open_source
from vision_mtl.data.store import Settings

INDEX = "index.json"
BLOCK = 512  # bytes that tar rounds every member up to, and that its header takes
Report = Callable[[str, int, int], None]  # (what, done, of how many)


@dataclass(frozen=True)
class Shard:
    """A shard that was written: its file, how many samples it holds, and its size in bytes."""

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
    """Write the pool's one source to `folder/SIDE-NUMBER.tar`; a shard exceeds `max_bytes` only by a single sample.

    Raises `UserError` if there are several sources, masks (which shards of ours do not hold), files in `folder`, or no
    room on the disk.
    """
    name = _only_source(pool, tasks, folder)
    source = open_source(name, Path(data.root).expanduser())
    items = load_source(name, data, tasks, settings, None).items
    side_of = {identity: int(side) for identity, side in zip(pool.identities, pool.split, strict=True)}
    sided = {side: [i for i in items if side_of.get(f"{name}::{i.identity}") == n] for n, side in enumerate(SPLITS)}
    total, done, shards, index = sum(len(found) for found in sided.values()), 0, [], {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for side, own in sided.items():
            for number, samples in enumerate(_in_shards(source, own, max_bytes)):
                path = folder / f"{side}-{number:06d}.tar"
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
            "Give one with --data.unlabelled or --tasks.NAME.source, and each a folder of its own."
        )
    if dense := [name for name, task in tasks.items() if label_kind(task.kind).is_dense]:
        raise UserError(f"data.to_shards: shards hold no masks; found task {dense[0]!r} of kind dense. Leave it out.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"data.to_shards {str(folder)!r} must be a new or empty folder; choose another.")
    return pool.sources[0]


Member = tuple[str, bytes]  # name in the tar file, content


def _in_shards(source: Source, items: Sequence[Item], max_bytes: int) -> Iterator[list[tuple[str, Item, list[Member]]]]:
    """Samples (key, item, members) shard by shard; one shard is in memory."""
    shard: list[tuple[str, Item, list[Member]]] = []
    size = 0
    for number, item in enumerate(items):
        key = f"{number:08d}"  # not the file's name: a reader takes all after its first dot for the suffix
        members = _members(key, source, item)
        own = sum(_tar_bytes(content) for _, content in members)
        if shard and size + own > max_bytes:
            yield shard
            shard, size = [], 0
        shard.append((key, item, members))
        size += own
    if shard:
        yield shard


def _members(key: str, source: Source, item: Item) -> list[Member]:
    suffix, content = _image(source, item)
    found = [(f"{key}{suffix}", content)]
    labels = {column.removeprefix(LABEL_FROM): value for column, value in item.labels.items()}
    alone = next(iter(labels.values())) if len(labels) == 1 else ""
    if alone and alone == alone.strip():  # readers strip a text file
        found.append((f"{key}.cls", alone.encode()))
    elif labels:
        found.append((f"{key}.json", json.dumps(labels, ensure_ascii=False).encode()))
    if item.group is not None:
        found.append((f"{key}.group", item.group.encode()))
    return found


def _image(source: Source, item: Item) -> tuple[str, bytes]:
    """(suffix, bytes): the file's own, or the pixels as PNG, which loses none."""
    if item.path is not None:
        try:
            return item.path.suffix.lower(), item.path.read_bytes()
        except OSError as error:
            raise unless_unreadable(item.path, error) from error
    pixels = source.read(item)
    encoded = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(encoded, "PNG")
    return ".png", encoded.getvalue()


def _tar_bytes(content: bytes) -> int:
    return BLOCK + -(-len(content) // BLOCK) * BLOCK


def _write(path: Path, members: Sequence[Member], num_samples: int) -> Shard:
    """One whole tar file, beside its name first."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, content in members:
                about = tarfile.TarInfo(name)  # no time, no owner: they would make equal shards differ
                about.size = len(content)
                tar.addfile(about, io.BytesIO(content))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return Shard(path, num_samples, path.stat().st_size)
