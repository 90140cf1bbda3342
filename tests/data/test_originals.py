"""Sizes, modes and formats of original images, from the headers of their files."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from vision_mtl.data.decode import ORIENTATION
from vision_mtl.data.originals import MAX_READ, Original, describe_originals, original
from vision_mtl.data.source import Item, open_source


def quiet(what: str, done: int, total: int) -> None: ...


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of several kinds, 20 pixels wide and 10 high."""
    for name, mode in (("a.png", "RGB"), ("b.png", "L"), ("c.png", "RGBA"), ("d.png", "P"), ("e.webp", "RGB")):
        Image.new(mode, (20, 10)).save(tmp_path / name)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.new("CMYK", (10, 20)).save(tmp_path / "f.jpg", exif=exif)
    cv2.imwrite(str(tmp_path / "g.png"), np.zeros((10, 20, 3), np.uint16))
    cv2.imwrite(str(tmp_path / "h.tif"), np.zeros((10, 20), np.float32))
    return tmp_path


def test_headers_tell_what_an_image_is(folder: Path) -> None:
    source = open_source(f"images/{folder}", Path())
    found = {item.file.name: original(source, item) for item in source.items()}
    assert {(one.width, one.height) for one in found.values()} == {(20, 10)}, "upright"
    assert {name: (one.mode, one.format) for name, one in found.items()} == {
        "a.png": ("RGB", "PNG"),
        "b.png": ("grey", "PNG"),
        "c.png": ("RGB + alpha", "PNG"),
        "d.png": ("palette", "PNG"),
        "e.webp": ("RGB", "WEBP"),
        "f.jpg": ("CMYK", "JPEG"),
        "g.png": ("RGB 16 bit", "PNG"),
        "h.tif": ("grey float", "TIFF"),
    }


def test_a_tiff_file_of_many_bands(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "bands.tif", np.zeros((10, 20, 7), np.uint16), photometric="minisblack", planarconfig="contig"
    )
    source = open_source(f"images/{tmp_path}", Path())
    assert original(source, source.items()[0]) == Original(20, 10, "7 bands uint16", "TIFF")


def test_damaged_files_are_left_out(folder: Path) -> None:
    (folder / "broken.png").write_bytes(b"no image")
    source = open_source(f"images/{folder}", Path())
    found = describe_originals(source, source.items(), "x", quiet)
    assert (found["examined"], found["of"]) == (8, 9)
    assert found["width"] == {"low": 20, "median": 20, "high": 20} and found["formats"]["PNG"] == 5


class Drawn:
    """A source without files whose images become wider."""

    version = "1"

    def __init__(self) -> None:
        self.reads = 0

    def items(self) -> list[Item]:
        return [Item(str(number)) for number in range(500)]

    def read(self, item: Item) -> np.ndarray:
        self.reads += 1
        return np.zeros((4, 1 + int(item.identity), 1), np.uint16)


def test_few_images_are_read_where_there_are_no_files() -> None:
    source = Drawn()
    found = describe_originals(source, source.items(), "x", quiet)  # type: ignore[arg-type]
    assert source.reads == found["examined"] == MAX_READ and found["of"] == 500
    assert found["width"] == {"low": 1, "median": 250, "high": 500}, "from the first to the last"
    assert found["modes"] == {"grey uint16": MAX_READ}
    assert original(source, Item("6")) == Original(7, 4, "grey uint16")  # type: ignore[arg-type]
