"""The files of a data set, a zip or a folder, by name."""

import collections
import os
import stat
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from PIL import Image, UnidentifiedImageError

from dnnlib import UserError
from training.data.photograph import Photograph, decode, extensions, missing_reader

LABEL_FILE = "dataset.json"
GROUND_TRUTH = "ground_truth.npz"

# What training writes into a run folder, beside pictures that are no photographs.
_RUN_CONFIG, _RUN_LOGS = "config.json", ("log.txt", "stats.jsonl")


class UnreadableError(UserError):
    """A file of the data set cannot be read, or does not come."""


class DatasetArchive:
    """The files of a zip or of a folder with all its sub-folders, by name.

    Linked folders and files belong to a folder; each folder counts once, so that links in circles
    end. What is no regular file, links to nowhere and whatever lies in a run folder do not belong.
    Safe in other processes: it pickles without its handle, and each process opens its own. Safe in
    threads.

    Attributes:
        path: the zip or folder.
        notes: one line on each kind of file that is not read.

    Raises:
        UserError: when `path` is missing or neither of the two, or holds no image.
    """

    def __init__(self, path: str | os.PathLike):
        if not os.fspath(path):
            raise UserError("the data set's path is empty; give a zip or a folder of images")
        self.path = Path(path)
        self.notes: list[str] = []
        self._zip: zipfile.ZipFile | None = None
        self._zip_owner: int | None = None
        if not os.path.exists(self.path):
            raise UserError(
                f"no such data set: {printable(self.path)}; give a zip or a folder of images"
            )
        all_names = set(self._folder_names() if self.path.is_dir() else self._zip_names())
        runs = _run_folders(all_names)
        self._names = {name for name in all_names if not _is_below(name, runs)}
        self._images = sorted(name for name in self._names if _is_image_name(name))
        self.notes += [f"{printable(run)} is a run folder: nothing in it is read" for run in runs]
        if skipped := _describe_skipped(self._names - set(self._images)):
            self.notes.append(f"not read: {skipped}")
        if not self._images:
            reasons = "; ".join(self.notes)
            raise UserError(
                f"no images in {printable(self.path)}; any format that Pillow reads will do"
                + (f" ({reasons})" if reasons else "")
            )

    def image_names(self) -> list[str]:
        """Sorted names of all images, known by extension; hidden files are left out."""
        return list(self._images)

    def exists(self, name: str) -> bool:
        """Whether the data set has a file of this name."""
        return name in self._names

    def label_files(self) -> list[str]:
        """`dataset.json`, or else those that lie one folder down."""
        if self.exists(LABEL_FILE):
            return [LABEL_FILE]
        return sorted(name for name in self._names if _is_one_down(name))

    def read(self, name: str) -> bytes:
        """The contents of a file.

        Raises:
            UnreadableError: in whatever way it is broken.
        """
        try:
            if self.path.is_dir():
                return (self.path / name).read_bytes()
            return self._open_zip().read(name)
        except Exception as error:  # zipfile raises whatever a broken archive leads it to
            raise UnreadableError(f"cannot read {printable(name)} ({one_line(error)})") from error

    def read_photograph(self, name: str) -> Photograph:
        """An image as a person sees it.

        Raises:
            UnreadableError: it names the image, and tells why.
        """
        try:
            return decode(self.read(name))
        except UnreadableError:
            raise
        except Exception as error:  # Pillow's readers raise whatever a broken file leads them to
            raise UnreadableError(
                f"cannot read image {printable(name)} ({one_line(error)})"
            ) from error

    def read_image(self, name: str, labeled: bool = False) -> Image.Image:
        """An image, upright, in RGB on white.

        Args:
            name: the image's.
            labeled: whether it has a camera, which would have to follow a crop or a turn.

        Raises:
            UnreadableError: it names the image, which is corrupt, or labeled but not square or not
                stored upright.
        """
        image, orientation = self.read_photograph(name)
        if labeled and image.width != image.height:
            fault, action = f"is {image.width} x {image.height}, not square", "crops"
        elif labeled and orientation != 1:
            fault, action = (
                f"is stored turned or mirrored (EXIF orientation {orientation})",
                "turns",
            )
        else:
            return image
        raise UnreadableError(
            f"image {printable(name)} has a camera label but {fault}; `dataset_tool.py convert` "
            f"{action} image and label together"
        )

    def _zip_names(self) -> list[str]:
        if not self.path.is_file():
            raise UserError(f"{printable(self.path)} is neither a folder nor a file")
        infos = self._open_zip().infolist()
        return [
            info.filename
            for info in infos
            if not info.is_dir() and not stat.S_ISLNK(info.external_attr >> 16)
        ]

    def _folder_names(self) -> Iterator[str]:
        """Regular files below the folder; real folders come before links to them."""
        irregular: list[Path] = []
        visited = {_identity(parent) for parent in self.path.resolve().parents}
        folders, links = collections.deque([self.path]), collections.deque[Path]()
        while folders or links:
            folder = (folders or links).popleft()
            if (identity := _identity(folder)) in visited:
                continue
            visited.add(identity)
            for path in self._look_into(folder):
                if path.is_dir():
                    (links if path.is_symlink() else folders).append(path)
                elif path.is_file():
                    yield path.relative_to(self.path).as_posix()
                elif not path.name.startswith("."):
                    irregular.append(path)
        if irregular:
            self.notes.append(
                f"not read: {first_of(irregular)}, no regular files (links to nowhere, pipes)"
            )

    def _look_into(self, folder: Path) -> list[Path]:
        try:
            return sorted(folder.iterdir())
        except OSError as error:
            fault = f"cannot look into {printable(folder)} ({error.strerror})"
            if folder == self.path:
                raise UserError(fault) from error
            self.notes.append(f"not read: {fault}")  # as lost+found, where disks begin
            return []

    def _open_zip(self) -> zipfile.ZipFile:
        # A handle inherited by fork shares its file position with the parent's.
        if self._zip is None or self._zip_owner != os.getpid():
            try:
                self._zip, self._zip_owner = zipfile.ZipFile(self.path), os.getpid()
            except Exception as error:
                raise UnreadableError(
                    f"{printable(self.path)} is neither a folder nor a readable zip "
                    f"({one_line(error)})"
                ) from error
        return self._zip

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_zip": None}


def refuse_inside(outdir: str | os.PathLike, data: str | os.PathLike) -> None:
    """Refuse to write where later runs would look for photographs.

    Raises:
        UserError: when `outdir` is the folder `data` or lies in it.
    """
    if os.path.isdir(data) and Path(outdir).resolve().is_relative_to(Path(data).resolve()):
        raise UserError(
            f"--outdir {printable(outdir)} lies in the data {printable(data)}, whose pictures "
            "would become photographs of the next run; choose a folder elsewhere"
        )


def one_line(error: BaseException) -> str:
    """What an error says, or else its name, printable and without line breaks."""
    if isinstance(error, UnidentifiedImageError):  # its own words are an address in memory
        return "no kind of image that Pillow knows"
    return printable(" ".join(str(error).split())) or type(error).__name__


def printable(name: object) -> str:
    r"""A file's name for messages: bytes that are no UTF-8 and control characters as \x escapes."""
    return "".join(c if c.isprintable() else _escape(c) for c in str(name))


def _escape(character: str) -> str:
    if 0xDC80 <= ord(character) <= 0xDCFF:  # how Python keeps a byte that is no UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def first_of(names: Sequence[object]) -> str:
    """'a and 2 more' of a, b and c."""
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return printable(names[0]) + more


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _run_folders(names: set[str]) -> list[str]:
    """Sub-folders that training has written."""
    folders = (str(PurePosixPath(n).parent) for n in names if n.endswith(f"/{_RUN_CONFIG}"))
    return sorted(
        folder for folder in folders if any(f"{folder}/{log}" in names for log in _RUN_LOGS)
    )


def _is_below(name: str, folders: Iterable[str]) -> bool:
    return any(name.startswith(f"{folder}/") for folder in folders)


def _is_one_down(name: str) -> bool:
    path = PurePosixPath(name)
    return path.name == LABEL_FILE and len(path.parts) == 2 and not _is_hidden(name)


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in PurePosixPath(name).parts)


def _is_image_name(name: str) -> bool:
    return not _is_hidden(name) and PurePosixPath(name).suffix.lower() in extensions()


def _describe_skipped(names: Iterable[str]) -> str:
    """'2 .heic (pip install pillow-heif), 1 .txt' of files that are neither images nor known."""
    own = {LABEL_FILE, GROUND_TRUTH}
    paths = (PurePosixPath(name) for name in names if not _is_hidden(name))
    kinds = collections.Counter(path.suffix.lower() for path in paths if path.name not in own)
    return ", ".join(
        f"{count} {printable(kind) or 'without an extension'}{missing_reader(kind)}"
        for kind, count in sorted(kinds.items())
    )
