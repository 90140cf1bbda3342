"""Every image format is decoded like other libraries do, or refused with a reason."""

import io
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps
from skimage import data

from vision_mtl.data import decode, jpeg
from vision_mtl.data.decode import UnreadableImage, decode_bytes, decode_file, decode_fitted, decode_raw
from vision_mtl.data.resize import reduction, resize


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def by_pillow(data: bytes, mode: str = "RGB") -> np.ndarray:
    pixels = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data)).convert(mode)))
    return pixels if pixels.ndim == 3 else pixels[..., None]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP", "GIF"])
def test_colour_files_agree_with_pillow(picture, kind: str) -> None:
    data = encoded(Image.fromarray(picture()), kind, **({"lossless": True} if kind == "WEBP" else {}))
    assert np.array_equal(decode_bytes(data, "x"), by_pillow(data))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}])
def test_jpeg_agrees_with_pillow_to_rounding(picture, options: dict) -> None:
    data = encoded(Image.fromarray(picture()), "JPEG", **options)
    assert np.abs(decode_bytes(data, "x").astype(int) - by_pillow(data)).max() <= 3


def test_channels_are_red_green_blue(picture) -> None:
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    for kind in ("PNG", "JPEG", "BMP"):
        assert decode_bytes(encoded(Image.fromarray(red), kind), "x")[4, 4].tolist()[0] > 250


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP"])
def test_grey_stays_one_channel(picture, kind: str) -> None:
    grey = Image.fromarray(picture()).convert("L")
    data = encoded(grey, kind)
    found = decode_bytes(data, "x")
    assert found.shape == (40, 60, 1)
    assert np.abs(found.astype(int) - by_pillow(data, "L")).max() <= 3


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_dropped_not_blended(picture, mode: str) -> None:
    image = Image.fromarray(picture()).convert("L" if mode == "LA" else "RGB")
    image.putalpha(0)
    expected = np.asarray(image)[..., :-1]
    assert np.array_equal(decode_bytes(encoded(image, "PNG"), "x"), expected)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_transparent_colour_is_an_ordinary_colour(picture, mode: str) -> None:
    image = Image.fromarray(picture()).convert(mode)
    data = encoded(image, "PNG", transparency=image.getpixel((3, 3)))
    assert np.array_equal(decode_bytes(data, "x"), by_pillow(data, mode))


@pytest.mark.parametrize("transparent", [False, True])
def test_palettes_become_colours(picture, transparent: bool) -> None:
    image = Image.fromarray(picture()).quantize(16)
    data = encoded(image, "PNG", **({"transparency": 0} if transparent else {}))
    assert np.array_equal(decode_bytes(data, "x"), np.asarray(image.convert("RGB")))


def test_one_bit_images_are_black_and_white() -> None:
    bits = np.eye(9, dtype=bool)
    found = decode_bytes(encoded(Image.fromarray(bits), "PNG"), "x")
    assert np.array_equal(found[..., 0], bits * np.uint8(255))


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_kept(suffix: str, channels: int) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (6, 7, channels), dtype=np.uint16)
    data = cv2.imencode(suffix, deep)[1].tobytes()
    found, expected = decode_raw(data, "x"), deep if channels == 1 else deep[..., 2::-1]
    assert np.array_equal(found.values, expected) and found.maximum is None


def test_cmyk_agrees_with_pillow(picture) -> None:
    data = encoded(Image.fromarray(picture()).convert("CMYK"), "JPEG", quality=95)
    assert np.array_equal(decode_bytes(data, "x"), by_pillow(data))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "deep PNG", "TIFF"])
def test_exif_orientation_is_applied(picture, kind: str, orientation: int) -> None:
    image = Image.fromarray(picture())
    exif = Image.Exif()
    exif[0x0112] = orientation
    if kind == "deep PNG":
        image = Image.fromarray(picture()[..., 0].astype(np.uint16) * 257)
        data = encoded(image, "PNG", exif=exif)
        upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        expected = np.asarray(upright)[..., None]
    else:
        data = encoded(image, kind, exif=exif)
        expected = by_pillow(data)
    found = decode_bytes(data, "x")
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).max() <= 3


def test_floats_are_kept() -> None:
    values = np.linspace(-2, 3, 12, dtype=np.float32).reshape(3, 4)
    assert np.array_equal(decode_bytes(cv2.imencode(".tiff", values)[1].tobytes(), "x")[..., 0], values)


def test_one_pixel(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "one.png")
    assert decode_file(tmp_path / "one.png").tolist() == [[[1, 2, 3]]]


def truncated(picture, kind: str, share: float) -> bytes:
    data = encoded(Image.fromarray(picture(0, 200, 300)), kind)
    return data[: int(len(data) * share)]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "GIF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_file_is_refused(picture, kind: str, share: float) -> None:
    with pytest.raises(UnreadableImage, match=r"^some file: "):
        decode_bytes(truncated(picture, kind, share), "some file")


def test_a_png_with_a_changed_byte_is_refused_where_pillow_refuses_it(picture) -> None:
    data, refused = encoded(Image.fromarray(picture()), "PNG"), 0
    for at in range(data.index(b"IDAT") + 4, len(data) - 20, len(data) // 40):
        changed = data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :]
        try:
            by_pillow(changed)
        except OSError:
            refused += 1
            with pytest.raises(UnreadableImage):
                decode_bytes(changed, "x")
    assert refused > 30


def test_a_truncated_jpeg_with_a_whole_thumbnail_is_refused(picture) -> None:
    exif = Image.Exif()
    thumbnail = encoded(Image.fromarray(picture(1, 20, 30)), "JPEG")
    data = encoded(Image.fromarray(picture(0, 200, 300)), "JPEG", exif=exif.tobytes() + thumbnail)
    with pytest.raises(UnreadableImage):
        decode_bytes(data[: len(data) // 2], "x")


def test_a_jpeg_with_bytes_after_its_end_is_read(picture) -> None:
    data = encoded(Image.fromarray(picture()), "JPEG")
    assert np.array_equal(decode_bytes(data + b"\0" * 100, "x"), decode_bytes(data, "x"))


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "empty"), (b"a text file renamed", "not an image"), (b"\x89PNG\r\n\x1a\n", "")]
)
def test_a_file_that_is_not_an_image_gives_the_reason(tmp_path: Path, data: bytes, reason: str) -> None:
    file = tmp_path / "text.png"
    file.write_bytes(data)
    with pytest.raises(UnreadableImage, match=rf"text\.png: .*{reason}"):
        decode_file(file)


def test_a_missing_file_and_a_folder_give_the_reason(tmp_path: Path) -> None:
    with pytest.raises(UnreadableImage, match="No such file"):
        decode_file(tmp_path / "none.png")
    with pytest.raises(UnreadableImage, match="directory"):
        decode_file(tmp_path)


def test_a_huge_image_is_refused_by_its_header(picture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decode, "MAX_PIXELS", 100)
    with pytest.raises(UnreadableImage, match="60 x 40 pixels exceed 100"):
        decode_bytes(encoded(Image.fromarray(picture()), "PNG"), "x")


def test_a_panorama_of_20000_pixels_is_read(tmp_path: Path) -> None:
    strip = np.broadcast_to(np.arange(20_000, dtype=np.uint32).astype(np.uint8)[None], (2000, 20_000))
    cv2.imwrite(str(tmp_path / "wide.png"), strip, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert decode_file(tmp_path / "wide.png").shape == (2000, 20_000, 1)


def test_nothing_is_printed_for_damaged_files(picture, capfd: pytest.CaptureFixture[str]) -> None:
    for kind in ("JPEG", "PNG", "TIFF"):
        with pytest.raises(UnreadableImage):
            decode_bytes(truncated(picture, kind, 0.5), "x")
    assert capfd.readouterr().err == ""


def test_photographs_agree_with_pillow_to_rounding() -> None:
    folder = Path(os.environ.get("VISION_MTL_PHOTOS", "../shared/data/imagenet_sample1000_160/images"))
    files = sorted(folder.parent.rglob("*.jp*g"))[:40] if folder.parent.is_dir() else []
    if not files:
        pytest.skip("no photographs beside the project")
    for file in files:
        image = Image.open(file)
        if image.mode == "RGB":
            assert np.abs(decode_file(file).astype(int) - by_pillow(file.read_bytes())).mean() < 0.5


def photograph(height: int, width: int, top: int = 0) -> np.ndarray:
    """Return a part of a photograph, (H, W, 3) uint8: fur, eyes and a plain background."""
    return np.ascontiguousarray(cv2.resize(data.chelsea(), (900, 1400))[top : top + height, :width])


@pytest.mark.parametrize("options", [{"quality": 90}, {"progressive": True}, {"subsampling": 0, "quality": 95}])
@pytest.mark.parametrize(
    ("shape", "fit", "scale", "levels"),
    [
        ((160, 240), "stretch", 2, 0.5),
        ((160, 240), "crop", 2, 0.5),
        ((160, 240), "pad", 2, 0.5),
        ((1024, 512), "stretch", 8, 0.5),
        ((1024, 512), "pad", 8, 0.5),
        ((331, 500), "stretch", 4, 2),  # an edge inside a pixel of the scaled decode
        ((331, 500), "crop", 4, 2),
        ((331, 500), "pad", 4, 2),
    ],
)
def test_a_scaled_decode_is_the_area_average_of_the_full_one(
    shape: tuple[int, int], fit: str, scale: int, levels: float, options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They agree to a few of 255 grey levels on average: low frequencies are not exactly an average of pixels."""
    coded = encoded(Image.fromarray(photograph(*shape, top=300)), "JPEG", **options)
    expected = resize(decode_bytes(coded, "x"), (64, 64), fit)
    asked: list[int] = []
    decode_at_scale = decode.decode_at_scale
    monkeypatch.setattr(decode, "decode_at_scale", lambda *given: (asked.append(given[3]), decode_at_scale(*given))[1])
    found, of = decode_fitted(coded, "x", (64, 64), 3, fit)
    assert of == shape and asked == [scale]
    difference = np.abs(found.astype(int) - expected)
    assert difference.mean() < levels and np.quantile(difference, 0.99) < 12 * levels


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_scaled_decode_has_the_same_orientation(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    coded = encoded(Image.fromarray(photograph(320, 200)), "JPEG", exif=exif, quality=92)
    whole = decode_bytes(coded, "x")
    found, of = decode_fitted(coded, "x", (48, 40), 3, "stretch")
    assert of == whole.shape[:2] == ((320, 200) if orientation < 5 else (200, 320))
    assert np.abs(found.astype(int) - resize(whole, (48, 40))).mean() < 1


def test_a_grey_jpeg_is_scaled_as_grey() -> None:
    coded = encoded(Image.fromarray(photograph(160, 160)).convert("L"), "JPEG", quality=92)
    found, _ = decode_fitted(coded, "x", (40, 40), 1, "stretch")
    assert found.shape == (40, 40, 1)
    assert np.abs(found.astype(int) - resize(decode_bytes(coded, "x"), (40, 40))).mean() < 1


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF"])
def test_other_formats_are_decoded_in_full_and_averaged(kind: str) -> None:
    image = photograph(160, 160)
    found, of = decode_fitted(encoded(Image.fromarray(image), kind), "x", (40, 40), 3, "stretch")
    assert of == (160, 160) and np.array_equal(found, resize(image, (40, 40)))


@pytest.mark.parametrize(
    ("shape", "size", "fit", "scale"),
    [
        ((128, 128), (64, 64), "stretch", 2),
        ((127, 128), (64, 64), "stretch", 1),  # less than twice the size
        ((161, 160), (64, 64), "stretch", 1),  # the partly filled last pixel would shift the image by 0.4 of a pixel
        ((256, 60), (64, 64), "stretch", 1),  # one side grows
        ((512, 256), (64, 64), "crop", 4),
        ((512, 256), (64, 64), "pad", 8),  # its longer side becomes 64, its shorter one 32
        ((4000, 3000), (64, 64), "stretch", 8),
    ],
)
def test_scale_of_a_reduced_decode(shape: tuple[int, int], size: tuple[int, int], fit: str, scale: int) -> None:
    assert reduction(shape, size, fit) == scale


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}])
def test_the_header_of_a_plain_jpeg(options: dict) -> None:
    header = jpeg.read_header(encoded(Image.fromarray(photograph(30, 50)), "JPEG", **options))
    assert (header.shape, header.channels, header.orientation) == ((30, 50), 3, 1)
    grey = jpeg.read_header(encoded(Image.fromarray(photograph(30, 50)).convert("L"), "JPEG", **options))
    assert grey.channels == 1


def test_a_file_that_is_not_a_plain_jpeg_has_no_header() -> None:
    coded = encoded(Image.fromarray(photograph(30, 50)), "JPEG")
    twelve_bits = bytearray(coded)
    twelve_bits[coded.index(b"\xff\xc0") + 4] = 12
    two_sizes = coded.replace(b"\xff\xc0", coded[coded.index(b"\xff\xc0") :][:19] + b"\xff\xc0", 1)
    cmyk = encoded(Image.fromarray(photograph(30, 50)).convert("CMYK"), "JPEG")
    png = encoded(Image.fromarray(photograph(30, 50)), "PNG")
    for other in (b"", coded[:-2], coded[:40], bytes(twelve_bits), two_sizes, cmyk, png, b"\xff\xd8\xff\xe0\xff"):
        assert jpeg.read_header(other) is None


def test_the_content_of_a_jpeg_does_not_include_metadata() -> None:
    def content(data: bytes) -> int:
        return jpeg.content(data, jpeg.read_header(data))

    image, exif = Image.fromarray(photograph(30, 50)), Image.Exif()
    plain = encoded(image, "JPEG")
    exif[0x010E] = "a description"
    told = encoded(image, "JPEG", exif=exif, icc_profile=bytes(200), comment="a comment")
    assert content(told) == content(plain) == content(plain + b"\0" * 100) and told != plain
    exif[0x0112] = 3
    assert content(encoded(image, "JPEG", exif=exif)) != content(plain)  # another image: upside down
    assert content(encoded(image, "JPEG", quality=74)) != content(plain)
    assert content(encoded(Image.fromarray(photograph(30, 50) // 2), "JPEG")) != content(plain)
