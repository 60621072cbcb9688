import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from dnnlib import UserError
from training.data.archive import DatasetArchive
from training.data.photograph import decode

COLOR = (10, 120, 230)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def flat(mode: str, color) -> Image.Image:
    return Image.new(mode, (8, 8), color)


def numbers(value, dtype) -> Image.Image:
    return Image.fromarray(np.full((8, 8), value, dtype))


def chunk(name: bytes, data: bytes) -> bytes:
    crc = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc)


def png(depth: int, color_type: int, raw: bytes, *chunks: bytes) -> bytes:
    """2 x 2 pixels of samples as they are, behind a filter byte per row."""
    header = struct.pack(">IIBBBBB", 2, 2, depth, color_type, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(raw))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def rows16(*first: int) -> bytes:
    """Two rows of 16-bit samples, the second one zero."""
    row = b"\0" + struct.pack(f">{len(first)}H", *first)
    return row + bytes(len(row))


def palette() -> Image.Image:
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    return image


def animation(kind: str, **options) -> bytes:
    other = [flat("RGB", (0, 0, 0))]
    return encoded(flat("RGB", COLOR), kind, save_all=True, append_images=other, **options)


GRAY16 = rows16(25700, 0)
TRANSPARENT16 = chunk(b"tRNS", struct.pack(">H", 25700))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(flat("L", 77), "png"), (77, 77, 77)),
        (encoded(flat("1", 1), "png"), (255, 255, 255)),
        (encoded(flat("1", 1), "tiff"), (255, 255, 255)),
        (encoded(flat("RGB", (1, 2, 3)), "bmp"), (1, 2, 3)),
        (encoded(flat("RGBA", (200, 0, 100, 0)), "png"), (255, 255, 255)),
        (encoded(flat("RGBA", (0, 0, 255, 51)), "webp", lossless=True), (204, 204, 255)),
        (encoded(flat("RGBA", (9, 9, 9, 0)), "tiff"), (255, 255, 255)),
        (encoded(flat("LA", (0, 102)), "png"), (153, 153, 153)),
        (encoded(palette(), "png"), (10, 20, 30)),
        (encoded(palette(), "png", transparency=1), (255, 255, 255)),
        (encoded(palette(), "gif", transparency=1), (255, 255, 255)),
        (encoded(flat("CMYK", (0, 255, 255, 0)), "jpeg"), (255, 0, 0)),
        (encoded(flat("CMYK", (0, 255, 255, 0)), "tiff"), (255, 0, 0)),
        (encoded(numbers(257 * 90, np.uint16), "png"), (90, 90, 90)),
        (encoded(numbers(257 * 90, np.uint16), "tiff"), (90, 90, 90)),
        (encoded(numbers(257 * 2, np.uint16), "png"), (2, 2, 2)),
        (encoded(Image.frombytes("I;16B", (8, 8), b"\x64\x64" * 64), "tiff"), (100, 100, 100)),
        (encoded(numbers(0.5, np.float32), "tiff"), (128, 128, 128)),
        (encoded(numbers(128, np.float32), "tiff"), (128, 128, 128)),
        (encoded(numbers(float("nan"), np.float32), "tiff"), (0, 0, 0)),
        (encoded(numbers(128, np.int32), "tiff"), (128, 128, 128)),
        (encoded(numbers(25700, np.int32), "tiff"), (100, 100, 100)),
        (b"P5 2 2 65535\n" + struct.pack(">4H", 200, 0, 0, 100), (1, 1, 1)),
        (b"P5 2 2 4095\n" + struct.pack(">4H", 2048, 0, 0, 0), (128, 128, 128)),
        (png(16, 0, GRAY16), (100, 100, 100)),
        (png(16, 0, GRAY16, TRANSPARENT16), (255, 255, 255)),
        (png(16, 4, rows16(25700, 65535, 0, 0)), (100, 100, 100)),
        (png(16, 4, rows16(25700, 0, 0, 0)), (255, 255, 255)),
        (png(16, 2, rows16(25700, 0, 65535, 0, 0, 0)), (100, 0, 255)),
        (png(1, 0, b"\0\x40\0\0", chunk(b"tRNS", b"\0\0")), (255, 255, 255)),
        (png(2, 0, b"\0\x80\0\0"), (170, 170, 170)),
        (animation("png"), COLOR),
        (animation("webp", lossless=True), COLOR),
        (animation("gif"), COLOR),
    ],
)  # fmt: skip
def test_numbers_and_colors_of_any_kind_come_out_as_a_person_sees_them(data, expected):
    photograph = decode(data)
    assert photograph.image.mode == "RGB" and photograph.image.getpixel((0, 0)) == expected


def test_lab_becomes_rgb():
    gray = decode(encoded(flat("LAB", (128, 128, 128)), "tiff")).image.getpixel((0, 0))
    np.testing.assert_allclose(gray, 119, atol=2)  # L* of 50 %


def test_white_is_zero_in_some_tiff_files():
    data = encoded(numbers(257 * 90, np.uint16), "tiff")
    start = data.index(struct.pack("<HHI", 262, 3, 1)) + 8
    assert decode(data[:start] + b"\0" + data[start + 1 :]).image.getpixel((0, 0)) == (165,) * 3


PNG = encoded(flat("RGB", COLOR), "png")
JPEG = encoded(flat("RGB", (100, 100, 100)), "jpeg", quality=95)


def png_with(extra: bytes) -> bytes:
    return PNG[:33] + extra + PNG[33:]


def jpeg_with(marker: int, content: bytes) -> bytes:
    return JPEG[:2] + struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content + JPEG[2:]


BROKEN_METADATA = {
    "text that unpacks to 80 MB": png_with(
        chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(80_000_000)))
    ),
    "long text": png_with(chunk(b"iTXt", b"k\0\0\0\0\0" + b"a" * 3_000_000)),
    "profile": png_with(chunk(b"iCCP", b"x\0\0garbage")),
    "large profile": png_with(chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(5_000_000)))),
    "checksum of a text": png_with(chunk(b"tEXt", b"a\0b")[:-1] + b"\0"),
    "exif": png_with(chunk(b"eXIf", b"garbage")),
    "resolution": png_with(chunk(b"pHYs", b"\0")),
    "animation": png_with(chunk(b"acTL", b"\0")),
    "text after the pixels": PNG[:-12] + chunk(b"tEXt", b"a\0bbbbbbbb")[:-9],
    "no end": PNG[:-12],
    "junk behind the end": PNG + b"junk",
    "jpeg exif": jpeg_with(0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff"),
    "jpeg profile": jpeg_with(0xE2, b"ICC_PROFILE\0\1\1garbage"),
    "jpeg several pictures": jpeg_with(0xE2, b"MPF\0II*\0\x08\0\0\0\2\0"),
    "jpeg photoshop": jpeg_with(0xED, b"Photoshop 3.0\x008BIM\x03\xed\0\0\0\0\0\2\0"),
    "jpeg adobe": jpeg_with(0xEE, b"Adobe\0"),
    "jpeg jfif": jpeg_with(0xE0, b"JFIF"),
}


@pytest.mark.parametrize("kind", BROKEN_METADATA)
def test_broken_metadata_do_not_matter(kind):
    color = (100, 100, 100) if "jpeg" in kind else COLOR
    assert decode(BROKEN_METADATA[kind]).image.getpixel((4, 4)) == color


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff", "gif"])
def test_pixels_that_are_cut_short_are_refused(kind):
    data = encoded(Image.effect_noise((64, 64), 90), kind)
    with pytest.raises(Exception):  # noqa: B017 - Pillow's, of many types
        decode(data[: len(data) * 2 // 3])


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_honored_and_told(kind, orientation):
    """The corner pixel moves as EXIF says: 6, for one, lies on its left side."""
    image = Image.new("RGB", (48, 32))
    image.paste((255, 255, 255), (0, 0, 16, 16))  # top left as stored
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright, told = decode(encoded(image, kind, exif=exif))
    assert told == orientation
    assert upright.size == ((48, 32) if orientation < 5 else (32, 48))
    right, bottom = orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8)
    corner = ((upright.width - 4) if right else 4, (upright.height - 4) if bottom else 4)
    assert min(upright.getpixel(corner)) > 240


def test_orientation_survives_broken_metadata_beside_it():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.new("RGB", (8, 4)), "png", exif=exif)
    data = data[:33] + chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(80_000_000))) + data[33:]
    assert decode(data).image.size == (4, 8)


def test_colors_of_another_profile_become_those_of_srgb():
    """Of a profile whose red and blue primaries are exchanged."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert (
        decode(encoded(flat("RGB", COLOR), "png", icc_profile=profile)).image.getpixel((0, 0))
        == COLOR
    )
    red, blue = profile.index(b"rXYZ"), profile.index(b"bXYZ")  # in the table of tags
    swapped = bytearray(profile.replace(b"s\0R\0G\0B", b"t\0e\0s\0t"))
    swapped[red : red + 4], swapped[blue : blue + 4] = b"bXYZ", b"rXYZ"
    image = decode(encoded(flat("RGB", COLOR), "png", icc_profile=bytes(swapped))).image
    np.testing.assert_allclose(image.getpixel((0, 0)), COLOR[::-1], atol=2)


def test_large_photographs_are_read_and_larger_ones_can_be_allowed(tmp_path, monkeypatch):
    Image.new("1", (16320, 12240)).save(tmp_path / "a.png")  # Pillow alone refuses it
    assert DatasetArchive(tmp_path).read_image("a.png").size == (16320, 12240)
    Image.new("L", (40, 30)).save(tmp_path / "a.png")
    monkeypatch.setenv("POF3D_MAX_PIXELS", "1000")
    with pytest.raises(UserError, match="a.png .40 x 30 .*POF3D_MAX_PIXELS=1200 allows it"):
        DatasetArchive(tmp_path).read_image("a.png")
    monkeypatch.setenv("POF3D_MAX_PIXELS", "1200")
    assert DatasetArchive(tmp_path).read_image("a.png").size == (40, 30)
    monkeypatch.setenv("POF3D_MAX_PIXELS", "many")
    with pytest.raises(UserError, match="POF3D_MAX_PIXELS=many"):
        DatasetArchive(tmp_path).read_image("a.png")


def test_heic_is_read_where_its_reader_is_installed(tmp_path):
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.from_pillow(Image.new("RGB", (64, 64), COLOR)).save(tmp_path / "a.heic")
    archive = DatasetArchive(tmp_path)
    image = archive.read_image(*archive.image_names())
    np.testing.assert_allclose(image.getpixel((32, 32)), COLOR, atol=3)
