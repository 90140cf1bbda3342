"""Archives of images: how far one may expand, and how a picture is read out of one where it lies.

An archive of a few kilobytes can say that it holds terabytes. What is unpacked at all (by the `datasets` library, which
keeps it inside its folder) is measured first, by its headers or by reading it through once, without writing a byte.
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

MAX_EXPANSION = 100  # times its own size; photographs do not shrink, plain bitmaps of drawings to a fiftieth
ALLOWANCE = 1 << 30  # bytes that any archive may expand to, however small it is
MEMBER_ALLOWANCE = 1 << 26  # bytes that any one picture of a zip file may expand to
SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".lzma", ".zst", ".7z", ".rar", ".lz4")
BLOCK = 1 << 20
SINGLE: dict[bytes, Callable[[Path], BufferedIOBase]] = {  # one file compressed, by its first bytes
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError)


def check_expansion(path: Path) -> None:
    """Raise `UserError` if what is in the archive, zip, tar or one compressed file, is far larger than the archive.

    Anything else is no archive that Python can look into: it is refused as well.
    """
    limit = max(ALLOWANCE, MAX_EXPANSION * path.stat().st_size)
    try:
        size = _expanded(path, limit)
    except DAMAGED as error:
        raise UserError(f"the archive {str(path)!r} is damaged, or of a kind that is not read: {error}.") from error
    if size > limit:
        raise UserError(
            f"the archive {str(path)!r} of {path.stat().st_size:,} bytes expands to more than {limit:,}: it is not "
            "unpacked. If you trust it, unpack it yourself and give the folder."
        )


def _expanded(path: Path, limit: int) -> int:
    """Bytes of all members; no more than just above `limit` of them are looked at."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return sum(member.file_size for member in archive.infolist())  # Python unpacks no more than it says
    with path.open("rb") as file:
        start = file.read(8)
    for magic, opener in SINGLE.items():
        if start.startswith(magic):  # a tar file or not; its members may still be larger than what it holds of them
            length = _length(opener(path), limit)
            return length if length > limit else max(length, _total(path, "r|*", limit) or 0)
    if (total := _total(path, "r:", limit)) is not None:
        return total
    raise ValueError("it is neither a zip nor a tar file, nor compressed by gzip, bzip2 or xz")


def _total(path: Path, way: Literal["r:", "r|*"], limit: int) -> int | None:
    """Bytes that the members of a tar file expand to; None if it is none."""
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
    """One file's bytes out of an open zip archive, which is never unpacked.

    `where` names it in the error: raises `UnreadableImage` if it is not there, is damaged, or expands too far.
    """
    try:
        member = archive.getinfo(name)
        limit = min(max(MEMBER_ALLOWANCE, MAX_EXPANSION * member.compress_size), MAX_FILE_BYTES)
        if member.file_size > limit:
            raise UnreadableImage(where, f"{member.compress_size:,} bytes expand to more than {limit:,}")
        return archive.read(member)
    except (KeyError, RuntimeError, NotImplementedError, *DAMAGED) as error:  # encrypted, or packed in an unknown way
        raise UnreadableImage(where, f"it cannot be read out of {archive.filename!r}: {error}") from error
