"""Photographs as a person sees them: whatever Pillow decodes, upright, in RGB on white."""

import functools
import io
import os
import struct
import warnings
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms

from dnnlib import UserError

MAX_PIXELS = 500_000_000  # of one photograph; 2 GB while it is decoded
MAX_PIXELS_VARIABLE = "POF3D_MAX_PIXELS"

# Of metadata, whose faults do not matter; a line for each photograph and epoch.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")

# Pillow's own limit, a third of this one, is meant for servers, and has no way to be told more.
Image.MAX_IMAGE_PIXELS = None

# Pillow knows these by name but decodes them only with outside help, or not at all.
_UNDECODABLE = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}
_HEIF = (".heic", ".heif", ".hif", ".heics", ".heifs")

_EXIF_ORIENTATION = 0x0112
_TIFF_BITS, _TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_UNMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}


class Photograph(NamedTuple):
    """An image, upright, in RGB on white; and the EXIF orientation, 1 to 8, it was stored in."""

    image: Image.Image
    orientation: int


@functools.cache
def extensions() -> frozenset[str]:
    """Lower-case extensions of the files that can be decoded here."""
    _register_heif()
    formats = Image.registered_extensions()  # fills Image.OPEN as well
    decodable = Image.OPEN.keys() - _UNDECODABLE
    return frozenset(extension for extension, kind in formats.items() if kind in decodable)


def missing_reader(extension: str) -> str:
    """What to install for files of this extension, as an aside; empty where nothing would help."""
    return " (`pip install pillow-heif` reads them)" if extension in _HEIF else ""


@functools.cache
def _register_heif() -> None:
    try:
        import pillow_heif
    except ImportError:
        return
    pillow_heif.register_heif_opener()


def decode(data: bytes) -> Photograph:
    """The photograph in a file's bytes; the first picture where there are several.

    Faults of what stands beside sound pixels (EXIF, comments, color profiles) are ignored.

    Raises:
        UserError: for more pixels than allowed.
        Exception: whatever Pillow raises for broken pixels.
    """
    _register_heif()
    try:
        return _decode(data)
    except UserError:
        raise
    except Exception:
        for bare in _without_metadata(data):
            try:
                return _decode(bare)
            except Exception:  # the first error tells what is wrong with the file
                continue
        raise


def _decode(data: bytes) -> Photograph:
    with Image.open(io.BytesIO(data)) as file:
        _check_size(*file.size)
        turned = _orientation(file) if file.format == "TIFF" else 1  # Pillow turns these itself
        file.load()
        orientation = _orientation(file)
        image = _on_white(_to_8_bits(file))
    if orientation in _TURNS:
        image = image.transpose(_TURNS[orientation])
    return Photograph(image, max(orientation, turned))


def _check_size(width: int, height: int) -> None:
    text = os.environ.get(MAX_PIXELS_VARIABLE) or str(MAX_PIXELS)
    if not text.isdecimal():
        raise UserError(f"{MAX_PIXELS_VARIABLE}={text} is not a number of pixels")
    if width * height > int(text):
        raise UserError(
            f"{width} x {height} pixels take {width * height * 4 / 1e9:.1f} GB of memory; "
            f"{MAX_PIXELS_VARIABLE}={width * height} allows it"
        )


def _orientation(file: Image.Image) -> int:
    try:
        orientation = file.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # EXIF is broken in many ways
        return 1
    return orientation if orientation in _TURNS else 1


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Numbers of any type as bytes, in the colors of sRGB."""
    if image.mode == "F" or image.mode.startswith("I"):
        return _gray_from_numbers(image)
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    image = image.convert(_UNMULTIPLIED.get(image.mode, image.mode))
    if image.mode == "LAB":
        return _convert_profile(image, ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")))
    profile = image.info.get("icc_profile")
    if not profile or _is_srgb(profile):
        return image
    try:
        return _convert_profile(image, ImageCms.ImageCmsProfile(io.BytesIO(profile)))
    except Exception:  # broken, or of another kind of image
        return image


def _gray_from_numbers(image: Image.Image) -> Image.Image:
    """Of more than 8 bits, which Pillow would clip instead of scale."""
    values = np.nan_to_num(np.asarray(image, dtype=np.float32))
    gray = (values * (255 / _full_scale(image, values))).round().clip(0, 255).astype(np.uint8)
    if image.mode.startswith("I;16") and _tiff_tag(image, _TIFF_PHOTOMETRIC, 1) == _WHITE_IS_ZERO:
        gray = 255 - gray
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        gray[values == transparent] = 255
    return Image.fromarray(gray)


def _full_scale(image: Image.Image, values: np.ndarray) -> float:
    """The number that means white: by the file's kind, else the smallest usual one that fits."""
    if image.mode.startswith("I;16"):
        return 2.0 ** _tiff_tag(image, _TIFF_BITS, 16) - 1
    if image.format in ("PNG", "PPM") and image.mode == "I":
        return 65535.0
    usual = (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0)
    top = float(values.max())
    return next((full for full in usual if top <= full), top)


def _tiff_tag(image: Image.Image, tag: int, otherwise: int) -> int:
    value = getattr(image, "tag_v2", {}).get(tag, otherwise)
    return int(value[0] if isinstance(value, tuple) else value)


def _convert_profile(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    mode = "RGBA" if image.mode == "RGBA" else "RGB"
    converted = ImageCms.profileToProfile(image, profile, _srgb(), outputMode=mode)
    return image if converted is None else converted


@functools.cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@functools.lru_cache(maxsize=64)
def _is_srgb(profile: bytes) -> bool:
    try:
        opened = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return "srgb" in ImageCms.getProfileDescription(opened).lower()
    except Exception:  # broken: then it says nothing
        return True


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _without_metadata(data: bytes) -> Iterator[bytes]:
    """The same picture with EXIF alone, then with nothing beside its pixels."""
    strip = {b"\x89PNG": _bare_png, b"\xff\xd8\xff": _bare_jpeg}
    for magic, bare in strip.items():
        if data.startswith(magic):
            for keep_exif in (True, False):
                try:
                    yield bare(data, keep_exif)
                except (struct.error, IndexError):
                    return


def _bare_png(data: bytes, keep_exif: bool) -> bytes:
    """Critical chunks (their names begin with a capital), transparency, EXIF."""
    kept = {b"tRNS", b"eXIf"} if keep_exif else {b"tRNS"}
    parts, position = [data[:8]], 8
    while position < len(data):
        (length,) = struct.unpack_from(">I", data, position)
        name, end = data[position + 4 : position + 8], position + 12 + length
        if name[:1].isupper() or (name in kept and _is_whole(data[position:end])):
            parts.append(data[position:end])
        if name == b"IEND":
            break
        position = end
    return b"".join(parts)


def _is_whole(chunk: bytes) -> bool:
    return zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])


def _bare_jpeg(data: bytes, keep_exif: bool) -> bytes:
    """Without comments and application segments.

    JFIF's and Adobe's stay, since they tell the colors; EXIF's stays on request.
    """
    parts, position = [data[:2]], 2
    while True:
        marker, length = data[position + 1], struct.unpack_from(">H", data, position + 2)[0]
        if data[position] != 0xFF or marker == 0xDA:  # the pixels begin
            return b"".join([*parts, data[position:]])
        segment = data[position : position + 2 + length]
        is_metadata = 0xE0 <= marker <= 0xEF or marker == 0xFE
        is_exif = marker == 0xE1 and segment[4:8] == b"Exif"
        if not is_metadata or (keep_exif and (is_exif or marker in (0xE0, 0xEE))):
            parts.append(segment)
        position += 2 + length
