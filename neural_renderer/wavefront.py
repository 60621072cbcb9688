"""The text of Wavefront .obj and .mtl files (appendix B of the Advanced Visualizer's manual).

Keywords may be in any case, words apart by any white space, a backslash at the end of a line joins
the next one to it, '#' begins a comment, a byte-order mark may come first, and bytes that are not
UTF-8 are taken for Latin-1. Keywords that say nothing about triangles and their colors are skipped.
"""

import codecs
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

_LINE_END = re.compile(r"\r\n|\r|\n")
_PIECE = re.compile(r'"[^"]*"|\S+')
_LARGEST = float(np.finfo(np.float32).max)
_KEYWORDS = frozenset(
    "v vt vn vp f fo l p g s o mtllib usemtl usemap maplib mg bevel c_interp d_interp lod call csh "
    "shadow_obj trace_obj cstype deg bmat step curv curv2 surf parm trim hole scrv sp end con "
    "ctech stech".split()
)
# Options before the name of a texture image, with the number of their values.
_OPTIONS = {
    **dict.fromkeys(("-o", "-s", "-t"), 3),  # the last two may be missing
    "-mm": 2,
    **dict.fromkeys(("-blendu", "-blendv", "-boost", "-texres", "-clamp"), 1),
    **dict.fromkeys(("-bm", "-imfchan", "-type", "-cc"), 1),
}


class Statement(NamedTuple):
    """One logical line of a file."""

    line: int  # number of its first line in the file
    keyword: str  # in lower case
    text: str  # the rest, with what may be a comment or a part of a name

    @property
    def words(self) -> list[str]:
        """The words before a comment."""
        return self.text.partition("#")[0].split()


class Texture(NamedTuple):
    """An image, looked up at uv * scale + offset."""

    path: Path
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)


class Material(NamedTuple):
    """The color of a surface, and the image that takes its place where there is one."""

    color: tuple[float, float, float] = (1.0, 1.0, 1.0)
    texture: Texture | None = None


class Geometry(NamedTuple):
    """What an .obj file says."""

    vertices: np.ndarray  # [V, 3] float32
    uvs: np.ndarray  # [N, 2] float32
    faces: np.ndarray  # [F, 3] int32, indices of vertices
    face_uvs: np.ndarray  # [F, 3] int32, indices of uvs, -1 for none
    face_materials: list[str]  # [F], '' for none
    libraries: list[Path]  # the .mtl files, in their order


def read_obj(path: Path) -> Geometry:
    """Read an .obj file; its polygons become fans of triangles.

    Raises:
        ValueError: with file and line, for what cannot be read.
    """
    reader, known, foreign = _ObjReader(path), False, None
    for statement in _statements(path):
        if statement.keyword not in _KEYWORDS:
            foreign = foreign or statement
            continue
        known = True
        try:
            reader.read(statement)
        except ValueError as error:
            raise _error(path, statement, error) from error
    if foreign and not known:
        raise _error(path, foreign, "this is no .obj file")
    return reader.geometry()


def read_materials(path: Path) -> dict[str, Material]:
    """Read an .mtl file: Kd and map_Kd of its materials.

    A name that may end in a comment counts with it and without it.

    Raises:
        ValueError: with file and line, for what cannot be read.
    """
    exact: dict[str, Material] = {}
    shortened: dict[str, Material] = {}
    name: str | None = None
    current = Material()
    for statement in _statements(path):
        try:
            if statement.keyword == "newmtl":
                name, current = statement.text, Material()
            elif statement.keyword == "kd":
                current = current._replace(color=_color(statement.words))
            elif statement.keyword == "map_kd":
                current = current._replace(texture=_texture(path.parent, statement.text))
            else:
                continue
        except ValueError as error:
            raise _error(path, statement, error) from error
        if name is not None:
            exact[name] = shortened[candidates(name)[-1]] = current
    return shortened | exact


def candidates(name: str) -> list[str]:
    """What a name may be: all of the text, or what comes before a comment."""
    return list(dict.fromkeys((name, re.split(r"\s#", name, maxsplit=1)[0].strip())))


class _ObjReader:
    """Collects the statements of an .obj file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._material = ""
        self._vertices: list[list[float]] = []
        self._uvs: list[list[float]] = []
        self._corners: list[tuple[int, int]] = []  # (vertex, uv), three for each face
        self._lines: list[int] = []  # of each face
        self._materials: list[str] = []
        self._libraries: list[Path] = []

    def read(self, statement: Statement) -> None:
        """Take in one statement; ValueError says what is wrong with it."""
        keyword = statement.keyword
        if keyword == "v":
            self._vertices.append(_numbers(statement.words, 3)[:3])
        elif keyword == "vt":
            self._uvs.append([*_numbers(statement.words, 1), 0.0][:2])
        elif keyword in ("f", "fo"):
            self._add_face(statement)
        elif keyword == "usemtl":
            self._material = statement.text
        elif keyword == "mtllib":
            self._libraries += _files(self._path.parent, statement.text)

    def _add_face(self, statement: Statement) -> None:
        corners = [self._corner(word) for word in statement.words]
        if len(corners) < 3:
            raise ValueError("a face has three corners at least")
        for second, third in zip(corners[1:], corners[2:], strict=False):
            self._corners += (corners[0], second, third)
            self._lines.append(statement.line)
            self._materials.append(self._material)

    def _corner(self, word: str) -> tuple[int, int]:
        """Indices from 0 of the vertex and of the texture coordinate (-1: none) in 'v/vt/vn'."""
        vertex, uv, normal, *rest = (*word.split("/"), "", "")
        if any(rest):
            raise ValueError(f"{word!r} is not v/vt/vn")
        if normal:
            _whole(normal)
        return _index(vertex, len(self._vertices)), _index(uv, len(self._uvs)) if uv else -1

    def geometry(self) -> Geometry:
        """All of it; ValueError if a face uses what the file does not have."""
        corners = np.asarray(self._corners, np.int64).reshape(-1, 3, 2)
        for column, elements in enumerate((self._vertices, self._uvs)):
            beyond = corners[..., column] >= len(elements)
            if beyond.any():
                face, corner = np.argwhere(beyond)[0]
                raise ValueError(
                    f"{self._path}:{self._lines[face]}: there is no element "
                    f"{corners[face, corner, column] + 1} among {len(elements)}"
                )
        return Geometry(
            np.asarray(self._vertices, np.float32).reshape(-1, 3),
            np.asarray(self._uvs, np.float32).reshape(-1, 2),
            corners[..., 0].astype(np.int32),
            corners[..., 1].astype(np.int32),
            self._materials,
            self._libraries,
        )


def _statements(path: Path) -> Iterator[Statement]:
    pending, first = "", 1
    for number, line in enumerate([*_LINE_END.split(_text(path)), ""], 1):
        first = first if pending else number
        line = (pending + line).strip()
        if line.endswith("\\") and "#" not in line:  # a comment may well end in a backslash
            pending = line[:-1] + " "
            continue
        pending = ""
        keyword, _, text = line.partition("#") if line.startswith("#") else _first_word(line)
        if keyword:
            yield Statement(first, keyword.lower(), text)


def _first_word(text: str) -> tuple[str, str, str]:
    """The first word, white space, and the rest as it stands."""
    match = re.match(r"(\S+)(\s*)(.*)", text, re.DOTALL)
    return (match[1], match[2], match[3]) if match else ("", "", "")


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from error
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def _error(path: Path, statement: Statement, reason: object) -> ValueError:
    line = f"{statement.keyword} {statement.text}"[:80]
    return ValueError(f"{path}:{statement.line}: cannot read {line!r}: {reason}")


def _numbers(words: list[str], least: int) -> list[float]:
    if len(words) < least:
        raise ValueError(f"fewer than {least} numbers")
    return [_number(word) for word in words]


def _number(word: str) -> float:
    if "_" in word:  # which Python would skip
        raise ValueError(f"{word!r} is not a number")
    value = float(word)
    if not -_LARGEST <= value <= _LARGEST:
        raise ValueError(f"{word!r} is not a finite number")
    return value


def _whole(word: str) -> int:
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", word):
        raise ValueError(f"{word!r} is not an index")
    return int(word)


def _index(word: str, count: int) -> int:
    """An index from 1, or one from -1 that counts back from the newest, as an index from 0."""
    given = _whole(word)
    index = given - 1 if given > 0 else count + given
    if given == 0 or index < 0:
        raise ValueError(f"there is no element {given} among {count}")
    return index


def _color(words: list[str]) -> tuple[float, float, float]:
    """Kd: red, green and blue, or one number for all of them."""
    if words and words[0].lower() in ("spectral", "xyz"):
        raise ValueError("only colors in red, green and blue can be read")
    numbers = _numbers(words, 1)
    if len(numbers) == 2:
        raise ValueError("fewer than 3 numbers")
    red, green, blue = numbers[:3] if len(numbers) > 1 else numbers * 3
    return red, green, blue


def _texture(folder: Path, text: str) -> Texture:
    """map_Kd: of the options before the image's name, -s and -o count."""
    values: dict[str, tuple[float, float]] = {}
    while True:
        option, _, rest = _first_word(text)
        option = option.lower()
        if option not in _OPTIONS or not rest:
            break
        given, text = _option_values(option, rest)
        if option in ("-s", "-o"):
            default = 1.0 if option == "-s" else 0.0
            u, v, *_ = (*given, default, default)
            values[option] = (u, v)
    found = _find(folder, text) or folder / _unquoted(candidates(text)[-1])
    return Texture(found, values.get("-s", (1.0, 1.0)), values.get("-o", (0.0, 0.0)))


def _option_values(option: str, text: str) -> tuple[list[float], str]:
    """The numbers of -o, -s and -t, and the text after an option's values."""
    numbers: list[float] = []
    for _ in range(_OPTIONS[option]):
        word, _, rest = _first_word(text)
        if _OPTIONS[option] == 3:
            try:
                numbers.append(_number(word))
            except ValueError:
                break
        text = rest
    return numbers, text


def _files(folder: Path, text: str) -> list[Path]:
    """The files of a list of names, any of which may hold spaces: the longest that exist."""
    found = _find(folder, text)
    if found:
        return [found]
    text = candidates(text)[-1]
    pieces, files = list(_PIECE.finditer(text)), []
    while pieces:
        for count in range(len(pieces), 0, -1):
            found = _find(folder, text[pieces[0].start() : pieces[count - 1].end()])
            if found:
                break
        files.append(found or folder / _unquoted(pieces[0][0]))
        del pieces[:count]
    return files


def _find(folder: Path, text: str) -> Path | None:
    """The file of a name; backslashes may stand for slashes."""
    for name in map(_unquoted, candidates(text)):
        for spelling in (name, name.replace("\\", "/")):
            try:
                if name and (folder / spelling).is_file():
                    return folder / spelling
            except (OSError, ValueError):  # too long, or with a zero byte
                continue
    return None


def _unquoted(name: str) -> str:
    return name[1:-1] if len(name) > 1 and name[0] == name[-1] == '"' else name
