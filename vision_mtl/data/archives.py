"""Archives of images: limits on their expanded size, and reading an image without unpacking the archive.

An archive of a few kilobytes can expand to terabytes. Before an archive is unpacked (by the `datasets` library, which
keeps files inside its folder), its expanded size is computed from headers or by reading it once, without writing.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from io import BufferedIOBase
from pathlib import Path
from typing import Literal

from vision_mtl.core.errors import UserError
from vision_mtl.data.decode import MAX_FILE_BYTES, UnreadableImage

MAX_EXPANSION = 100  # times the archive's size; photographs hardly compress, bitmaps of drawings 50-fold
ALLOWANCE = 1 << 30  # bytes that any archive may expand to, independent of its size
MEMBER_ALLOWANCE = 1 << 26  # bytes that any single image of a zip file may expand to
SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".lzma", ".zst", ".7z", ".rar", ".lz4")
BLOCK = 1 << 20
SINGLE: dict[bytes, Callable[[Path], BufferedIOBase]] = {  # one file compressed, by its first bytes
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError)


def check_expansion(path: Path) -> None:
    """Raise `UserError` if the content of an archive (zip, tar, one compressed file) is far larger than the archive.

    Also raises it for damaged archives and for kinds that Python cannot read.
    """
    limit = max(ALLOWANCE, MAX_EXPANSION * path.stat().st_size)
    try:
        size = _expanded(path, limit)
    except DAMAGED as error:
        raise UserError(f"the archive {str(path)!r} is damaged or of an unsupported kind: {error}.") from error
    if size > limit:
        raise UserError(
            f"the archive {str(path)!r} of {path.stat().st_size:,} bytes expands to more than {limit:,} bytes, so it "
            "is not unpacked. If you trust it, unpack it yourself and give the folder."
        )


def _expanded(path: Path, limit: int) -> int:
    """Return the bytes of all members; counting stops above `limit`."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return sum(member.file_size for member in archive.infolist())  # Python unpacks no more
    with path.open("rb") as file:
        start = file.read(8)
    for magic, opener in SINGLE.items():
        if start.startswith(magic):  # perhaps a tar file, whose sparse members may be larger than it
            length = _length(opener(path), limit)
            return length if length > limit else max(length, _total(path, "r|*", limit) or 0)
    if (total := _total(path, "r:", limit)) is not None:
        return total
    raise ValueError("it is neither a zip nor a tar file, nor compressed by gzip, bzip2 or xz")


def _total(path: Path, way: Literal["r:", "r|*"], limit: int) -> int | None:
    """Return the bytes that the members of a tar file expand to; None if it is not a tar file."""
    with suppress(tarfile.ReadError), tarfile.open(path, way) as tar:
        size = 0
        for member in tar:
            size += member.size
            if size > limit:
                break
        return size
    return None


def _length(file: BufferedIOBase, limit: int) -> int:
    size = 0
    with file:
        while size <= limit and (block := file.read(BLOCK)):
            size += len(block)
    return size


def read_member(archive: zipfile.ZipFile, name: str, where: str) -> bytes:
    """Return the bytes of one file in an open zip archive, without unpacking the archive.

    Raises `UnreadableImage`, with `where` as its name, if the file is missing, damaged, or expands too far.
    """
    try:
        member = archive.getinfo(name)
        limit = min(max(MEMBER_ALLOWANCE, MAX_EXPANSION * member.compress_size), MAX_FILE_BYTES)
        if member.file_size > limit:
            raise UnreadableImage(where, f"{member.compress_size:,} bytes expand to more than {limit:,}")
        return archive.read(member)
    except (KeyError, RuntimeError, NotImplementedError, *DAMAGED) as error:  # encrypted, or an unknown method
        raise UnreadableImage(where, f"it cannot be read from {archive.filename!r}: {error}") from error
