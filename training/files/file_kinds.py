"""Kinds of files that are given in place of a network file, told apart by how they begin."""

import re
from pathlib import Path

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
_BYTES_READ = 512
_LONGEST_HEADER = 10**8  # bytes, of a safetensors file
_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # by protocol

# Beginnings of files, and what they are; the first that fits counts.
_BEGINNINGS = (
    (
        b"version https://git-lfs",
        "is a git-LFS pointer, not the file that it stands for: run `git lfs pull`",
    ),
    (b"PK\x03\x04", "is a zip archive or a training checkpoint: name a network-*.safetensors"),
    (b"\x1f\x8b", "is compressed (gzip): unpack it"),
    (b"\xfd7zXZ", "is compressed (xz): unpack it"),
    (b"BZh", "is compressed (bzip2): unpack it"),
    (b"7z\xbc\xaf", "is compressed (7z): unpack it"),
    (b"Rar!", "is compressed (rar): unpack it"),
    (b"\x89PNG", "is a picture"),
    (b"\xff\xd8\xff", "is a picture"),
    (b"\x89HDF", "is an HDF5 file, not a network of PyTorch"),
)


def is_address(path: Path) -> bool:
    """Whether a path is an address, of the web or of a store: 'https://…', 's3://…'."""
    return bool(_ADDRESS.match(str(path)))


def is_pickle(path: Path) -> bool:
    """Whether a file is a pickle, as published checkpoints are, by its name or its content."""
    start = _start(path)
    by_content = start.startswith(_PICKLES) and not _is_safetensors(start)
    return by_content or path.suffix.lower() == ".pkl"


def foreign_kind(path: Path) -> str | None:
    """For a file that cannot be a network, what it is: 'is empty…'; None if it may be one."""
    start = _start(path)
    if not start:
        return "is empty: copying or downloading it was cut off; fetch it again"
    if _is_safetensors(start):
        return None
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head", b"<!--")):
        return "is a web page, as sites send in place of a download: fetch the file in a browser"
    if text.startswith((b"{", b"[")):
        return "is JSON text, not a network"
    return next((what for beginning, what in _BEGINNINGS if start.startswith(beginning)), None)


def _is_safetensors(start: bytes) -> bool:
    """Whether a file may be one; it begins with a number, which could look like anything."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") < _LONGEST_HEADER


def _start(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_BYTES_READ)
    except OSError:  # reported where the whole file is read
        return b"?"
