"""Every mode that Pillow, tifffile and OpenCV write is decoded as an independent decoder does, or refused by name."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from vision_mtl.data.decode import UnreadableImage, decode_raw

PILLOW_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "I;16B", "F")
FORMATS = {
    "PNG": {},
    "TIFF": {},
    "TIFF LZW": {"compression": "tiff_lzw"},
    "TIFF deflate": {"compression": "tiff_adobe_deflate"},
    "TIFF PackBits": {"compression": "packbits"},
    "PPM": {},
    "BMP": {},
    "GIF": {},
    "WEBP": {"lossless": True, "exact": True},
    "JPEG2000": {"irreversible": False},
    "AVIF": {"quality": 100},
}
TYPES = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8")


def of_mode(mode: str) -> Image.Image:
    rng = np.random.default_rng(0)
    if mode == "F":
        return Image.fromarray(rng.normal(size=(20, 30)).astype(np.float32))
    if mode == "I":
        return Image.fromarray(rng.integers(-90000, 90000, (20, 30), dtype=np.int32))
    if mode.startswith("I;16"):
        kind = ">u2" if mode == "I;16B" else "<u2"
        return Image.frombytes(mode, (30, 20), rng.integers(0, 65536, (20, 30)).astype(kind).tobytes())
    rgb = Image.fromarray(cv2.resize(rng.integers(0, 256, (5, 6, 3), np.uint8), (30, 20)))
    if mode == "LAB":
        profiles = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        return ImageCms.profileToProfile(rgb, *profiles, outputMode="LAB")
    if mode == "PA":
        return rgb.quantize(16).convert("PA")
    if mode in ("LA", "RGBA"):
        rgb.putalpha(Image.fromarray(rng.integers(0, 256, (20, 30), np.uint8)))
    return rgb.quantize(16) if mode == "P" else rgb.convert(mode)


def by_pillow(data: bytes) -> np.ndarray:
    """The file's own numbers where Pillow has them, else 8 bits without alpha."""
    opened = Image.open(io.BytesIO(data))
    if opened.mode.startswith(("I", "F")):
        values = np.asarray(opened)
        return values.astype(values.dtype.newbyteorder("="))[..., None]
    pixels = np.asarray(opened.convert("L" if opened.mode in ("1", "L", "LA") else "RGB"))
    return pixels if pixels.ndim == 3 else pixels[..., None]


@pytest.mark.parametrize("mode", PILLOW_MODES)
@pytest.mark.parametrize("kind", FORMATS)
def test_what_pillow_writes_is_read_alike_or_refused_by_name(kind: str, mode: str) -> None:
    buffer = io.BytesIO()
    try:
        of_mode(mode).save(buffer, kind.partition(" ")[0], **FORMATS[kind])
    except (OSError, KeyError, ValueError):
        pytest.skip("Pillow does not write it")
    data = buffer.getvalue()
    try:
        found = decode_raw(data, "x")
    except UnreadableImage as error:
        assert mode in ("LAB", "CMYK") and "not supported" in error.reason
        return
    expected = by_pillow(data)
    assert found.values.shape == expected.shape
    assert found.maximum == (255 if expected.dtype == np.uint8 else None) or kind == "PPM"
    assert np.abs(found.values.astype(float) - expected).max() <= (1 if expected.dtype == np.uint8 else 0)


def written(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


def numbers(shape: tuple[int, ...], kind: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    dtype = np.dtype(kind)
    if dtype.kind == "f":
        return rng.normal(size=shape).astype(dtype)
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, dtype=dtype, endpoint=True)


LAYOUTS = {
    "grey": ((21, 37), {"photometric": "minisblack"}),
    "inverted grey": ((21, 37), {"photometric": "miniswhite"}),
    "RGB": ((21, 37, 3), {"photometric": "rgb"}),
    "RGB by plane": ((3, 21, 37), {"photometric": "rgb", "planarconfig": "separate"}),
    "RGB and alpha": ((21, 37, 4), {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "RGB and a band": ((21, 37, 4), {"photometric": "rgb", "extrasamples": ["unspecified"]}),
    "grey and alpha": ((21, 37, 2), {"photometric": "minisblack", "extrasamples": ["unassalpha"]}),
    "five bands": ((21, 37, 5), {"photometric": "minisblack", "planarconfig": "contig"}),
    "five bands by plane": ((5, 21, 37), {"photometric": "minisblack", "planarconfig": "separate"}),
}
WRITING = {
    "strips": {"rowsperstrip": 4},
    "tiles": {"tile": (16, 32)},
    "deflate": {"compression": "zlib", "rowsperstrip": 8},
    "deflate in tiles": {"compression": "zlib", "tile": (16, 16)},
    "predictor": {"compression": "zlib", "predictor": 2, "rowsperstrip": 8},
    "predictor in tiles": {"compression": "zlib", "predictor": 2, "tile": (16, 16)},
    "LZMA": {"compression": "lzma"},
    "BigTIFF": {"bigtiff": True},
    "big-endian": {"byteorder": ">"},
    "big-endian BigTIFF": {"byteorder": ">", "bigtiff": True, "tile": (16, 16)},
}


@pytest.mark.parametrize("writing", WRITING)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_tifffile_writes_is_read_exactly_or_refused_by_name(layout: str, writing: str) -> None:
    shape, options = LAYOUTS[layout]
    for kind in TYPES:
        array = numbers(shape, kind)
        try:
            data = written(array, **options, **WRITING[writing])
        except (ValueError, NotImplementedError):
            continue  # tifffile does not write it without imagecodecs
        expected = array[..., None] if array.ndim == 2 else array
        expected = np.moveaxis(expected, 0, 2) if "planarconfig" in options and shape[0] < 6 else expected
        expected = expected[..., :-1] if options.get("extrasamples") == ["unassalpha"] else expected
        if layout == "inverted grey" and array.dtype.kind != "u":
            with pytest.raises(UnreadableImage, match="no maximum to invert from"):
                decode_raw(data, "x")
            continue
        expected = np.iinfo(array.dtype).max - expected if layout == "inverted grey" else expected
        found = decode_raw(data, "x")
        assert found.values.dtype == expected.dtype and np.array_equal(found.values, expected), kind
        assert found.maximum == (255 if kind == "u1" else None)


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"compression": "tiff_lzw", "predictor": 2}])
@pytest.mark.parametrize("kind", ["u2", "f4", "f8"])
@pytest.mark.parametrize("channels", [1, 3])
def test_what_opencv_writes_is_read_exactly(kind: str, channels: int, options: dict) -> None:
    array = numbers((21, 37, channels), kind)
    flags = [cv2.IMWRITE_TIFF_COMPRESSION, 5 if options else 1, cv2.IMWRITE_TIFF_PREDICTOR, options.get("predictor", 1)]
    data = cv2.imencode(".tif", array, flags)[1].tobytes()
    assert np.array_equal(decode_raw(data, "x").values, array[..., ::-1])


def with_float_predictor(array: np.ndarray) -> bytes:
    """A TIFF file of (H, W, C) floats with predicted bytes (Adobe's technical note 3), by a slow loop of its own."""
    height, width, channels = array.shape
    rows = []
    for row in array:
        by_byte = row.astype(row.dtype.newbyteorder(">")).reshape(-1, 1).view(np.uint8).T.ravel().astype(int)
        rows.append(
            bytes(int(b - (by_byte[i - channels] if i >= channels else 0)) % 256 for i, b in enumerate(by_byte))
        )
    packed = zlib.compress(b"".join(rows))
    tags = [(256, width), (257, height), (258, array.dtype.itemsize * 8), (259, 8), (262, 1), (273, 8), (277, channels),
            (278, height), (279, len(packed)), (317, 3), (339, 3)]  # fmt: skip
    directory = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + struct.pack("<H", len(tags)) + directory + bytes(4)


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
@pytest.mark.parametrize("channels", [1, 5])
def test_a_predictor_of_floats_is_undone(kind: str, channels: int) -> None:
    array = numbers((6, 9, channels), kind)
    assert np.array_equal(decode_raw(with_float_predictor(array), "x").values, array)


def test_white_is_zero_is_positive() -> None:
    data = written(np.array([[0, 1, 65535]], np.uint16), photometric="miniswhite")
    assert decode_raw(data, "x").values.ravel().tolist() == [65535, 65534, 0]


def test_colours_multiplied_by_alpha_are_divided_by_it() -> None:
    image = np.array([[[30, 60, 90, 128], [5, 6, 7, 255], [0, 0, 0, 0]]], np.uint8)
    data = written(image, photometric="rgb", extrasamples=["assocalpha"])
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int)
    assert np.abs(decode_raw(data, "x").values.astype(int) - expected).max() <= 1
    deep = written(image.astype(np.uint16) * 257, photometric="rgb", extrasamples=["assocalpha"])
    assert np.abs(decode_raw(deep, "x").values / 257 - expected).max() <= 1


def test_colours_under_a_zero_alpha_are_kept() -> None:
    image = numbers((4, 5, 4), "u2")
    image[..., 3] = 0
    data = written(image, photometric="rgb", extrasamples=["unassalpha"])
    assert np.array_equal(decode_raw(data, "x").values, image[..., :3])


def test_several_pages_are_refused_and_a_thumbnail_is_none() -> None:
    with pytest.raises(UnreadableImage, match=r"holds 3 pages.*save each page as a file"):
        decode_raw(written(numbers((3, 8, 8), "u2"), photometric="minisblack"), "x")
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        file.write(numbers((4, 4), "u2"), photometric="minisblack", subfiletype=1)
        file.write(numbers((8, 9), "u2"), photometric="minisblack")
    assert np.array_equal(decode_raw(buffer.getvalue(), "x").values[..., 0], numbers((8, 9), "u2"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_tiff_files_are_turned(orientation: int) -> None:
    array = numbers((4, 6, 5), "f4")
    tag = (274, "H", 1, orientation, True)
    data = written(array, photometric="minisblack", planarconfig="contig", extratags=[tag])
    turned = {
        1: array, 2: array[:, ::-1], 3: array[::-1, ::-1], 4: array[::-1], 5: array.swapaxes(0, 1),
        6: np.rot90(array, -1), 7: array[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(array),
    }  # fmt: skip
    assert np.array_equal(decode_raw(data, "x").values, turned[orientation])


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("writing", ["strips", "tiles", "deflate", "BigTIFF"])
def test_a_truncated_deep_file_is_refused(writing: str, share: float) -> None:
    data = written(numbers((64, 64, 5), "u2"), photometric="minisblack", planarconfig="contig", **WRITING[writing])
    with pytest.raises(UnreadableImage, match=r"^x: damaged: "):
        decode_raw(data[: int(len(data) * share)], "x")


def test_what_is_not_read_is_refused_by_name() -> None:
    with pytest.raises(UnreadableImage, match="none of its values is a finite number"):
        decode_raw(written(np.full((4, 4), np.nan, np.float32)), "x")
    with pytest.raises(UnreadableImage, match=r"SampleFormat 6.*not supported"):
        decode_raw(written(np.zeros((4, 4), np.complex64)), "x")
    with pytest.raises(UnreadableImage, match=r"PhotometricInterpretation 5.*not supported"):
        decode_raw(written(numbers((4, 4, 4), "u2"), photometric="separated"), "x")


@pytest.mark.parametrize(
    ("kind", "maximum"), [("P5", 100), ("P5", 4095), ("P6", 7), ("P6", 1023), ("P2", 9), ("P3", 300)]
)
def test_the_maximum_of_pgm_and_ppm_files_is_full_scale(kind: str, maximum: int) -> None:
    channels = 3 if kind in ("P3", "P6") else 1
    values = np.random.default_rng(0).integers(0, maximum + 1, (5, 7, channels))
    values[0, 0] = maximum
    head = f"{kind}\n# a comment\n7 5\n{maximum}\n".encode()
    binary = values.astype(np.uint8 if maximum < 256 else ">u2").tobytes()
    text = " ".join(map(str, values.ravel().tolist())).encode()
    found = decode_raw(head + (text if kind in ("P2", "P3") else binary), "x")
    assert found.values.shape == values.shape
    assert np.abs(found.values / found.maximum - values / maximum).max() <= 0.5 / 255
    assert found.values.dtype == (np.uint8 if maximum < 256 else np.uint16)


@pytest.mark.parametrize(
    "damaged", [b"P5\n4 4\n0\n" + bytes(16), b"P5\n4 4\n100\n" + bytes([101] * 16), b"P5\n4 4\n4095\n" + bytes(31),
                b"P2\n2 2\n9\n1 2 3", b"P2\n2 2\n9\n1 2 x 3", b"P5\n0 4\n9\n"]
)  # fmt: skip
def test_a_damaged_pgm_file_is_refused(damaged: bytes) -> None:
    with pytest.raises(UnreadableImage, match=r"^x: (damaged|not an image)"):
        decode_raw(damaged, "x")


def test_bmp_files_of_16_bits_are_read_as_by_pillow() -> None:
    pixels = np.random.default_rng(0).integers(0, 1 << 15, (6, 8)).astype("<u2")
    size = 54 + pixels.nbytes
    header = b"BM" + size.to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
    header += (
        (40).to_bytes(4, "little") + (8).to_bytes(4, "little") + (6).to_bytes(4, "little") + b"\1\0\x10\0" + bytes(24)
    )
    data = header + pixels.tobytes()
    assert np.array_equal(decode_raw(data, "x").values, by_pillow(data))


def test_jpeg_2000_files_of_16_bits() -> None:
    grey = numbers((40, 40), "u2")
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, "JPEG2000", irreversible=False)
    assert np.array_equal(decode_raw(buffer.getvalue(), "x").values[..., 0], grey)
    colour = cv2.imencode(".jp2", numbers((40, 40, 3), "u2"))[1].tobytes()
    with pytest.raises(UnreadableImage, match="JPEG 2000 with 3 samples of 16 bits is not supported"):
        decode_raw(colour, "x")
