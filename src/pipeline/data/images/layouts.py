"""Where images and their labels lie: a folder a class, folders of parts with such folders, an archive."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import compress
from pathlib import Path

from pipeline.data.core.letters import without_accents
from pipeline.data.images.decoding import SUFFIXES, refuse_passing
from pipeline.data.sources.archives import unpack
from pipeline.data.sources.finding import digest
from pipeline.errors import UserError
from pipeline.files import write_text

log = logging.getLogger(__name__)

TRAIN, VALIDATION, TEST = "train", "validation", "test"
_CALLED = {
    TRAIN: "train training trn trainings entrainement apprentissage entrenamiento addestramento treino treinamento",
    VALIDATION: "val valid validation validate dev validierung validierungs validacion validazione validacao",
    TEST: "test testing tst tests eval evaluation holdout prueba teste",
}
SPELLINGS = {name: part for part, names in _CALLED.items() for name in names.split()}
"""What people call the parts of a data set, in small letters and without accents."""
_BESIDE = re.compile(r"^\d+_|_?(?:set|data|daten|images?|imgs?|pictures|bilder|split|folder|dir)$|_?\d+$")
"""What may stand before and behind it, as in 1_train, testset and val_images."""
ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")


@dataclass
class Listing:
    """Image files with their labels.

    Args:
        root: Directory that the files lie in.
        files: Path of each image.
        labels: Name of each image's class.
        parts: Part that each image belongs to: ``train``, ``validation``, ``test``, or empty where nothing says so.
        notes: What was understood beyond one folder a class, and what was left out.
    """

    root: Path
    files: list[Path] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    parts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, files: Sequence[Path], label: str, part: str) -> None:
        """More images of one class and part."""
        self.files += files
        self.labels += [label] * len(files)
        self.parts += [part] * len(files)

    def chosen(self, kept: Sequence[bool]) -> Listing:
        """Some of the images.

        Args:
            kept: Whether each image stays.
        """
        files, labels = list(compress(self.files, kept)), list(compress(self.labels, kept))
        return Listing(self.root, files, labels, list(compress(self.parts, kept)), self.notes)


def unpacked(path: Path, data_dir: Path) -> Path:
    """The directory that an archive holds, unpacked once into the cache; any other path as it is.

    Args:
        path: A directory, a table, or a zip or tar archive.
        data_dir: The user's data directory.

    Raises:
        Damaged: The archive is not whole, or not safe.
    """
    if not path.name.lower().endswith(ARCHIVES) or not path.is_file():
        return path
    from filelock import FileLock

    entry = data_dir / "cache" / f"unpacked-{digest(path)[:24]}"
    entry.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(str(entry) + ".lock"):
        if not entry.is_dir():
            log.info("unpacking %s to %s", path, entry)
            unpack(path, entry, max_bytes=64 * 1024**3, max_count=10_000_000)
    # Most archives hold one folder, named like themselves.
    inside = _visible(entry)
    while len(inside) == 1 and inside[0].is_dir() and not _images_in(inside[0]):
        tables = [file for file in _visible(inside[0]) if file.suffix.lower() in (".csv", ".tsv")]
        entry, inside = inside[0], _visible(inside[0])
        if tables:
            break
    return entry


def listing(path: Path) -> Listing:
    """The images of a directory: ``CLASS/…``, or ``train/CLASS/…`` beside ``val/CLASS/…`` and ``test/CLASS/…``.

    Hidden files and folders hold no samples (systems keep copies and previews there).

    Raises:
        UserError: There is no such directory, it has fewer than two folders, or no images.
    """
    if not path.is_dir():
        raise UserError(
            f"{path}: there is no such directory; expected one folder a class in it, or a table of paths and labels "
            "(.csv), or an archive (.zip, .tar.gz) of these"
        )
    above, path = path, _only_folder(path)
    parts = _parts(path)
    found = Listing(path)
    if path != above:
        found.notes.append(f"{above}: its images are taken from {path}, the one folder with others in it")
    if parts:
        said = ", ".join(f"{folder.name}/ for {part}" for folder, part in parts.items())
        found.notes.append(f"{path}: its folders are taken for the parts of the data: {said}")
        if others := [folder.name for folder in class_folders(path, least=0) if folder not in parts]:
            log.warning("%s: left out, as they are no such part: %s", path, ", ".join(others[:10]))
        for folder, part in parts.items():
            _add_classes(found, folder, part)
    else:
        if len(folders := class_folders(path)) == 2 and all(_part_of(one) for one in folders):
            log.warning(
                "%s: its folders %s hold images, not folders of classes: they are learnt as classes",
                path,
                " and ".join(one.name for one in folders),
            )
        _add_classes(found, path, "")
    if not found.files:
        raise UserError(f"{path}: no images in its folders (looked for {', '.join(sorted(SUFFIXES))})")
    return found


def class_folders(root: Path, least: int = 2) -> list[Path]:
    """The folders of a directory that are not hidden, in order.

    Raises:
        UserError: There are fewer than ``least``.
    """
    found = [entry for entry in _visible(root) if entry.is_dir()]
    if len(found) < least:
        raise UserError(f"{root} has {len(found)} folders; expected one folder a class, two at least")
    return found


def image_files(root: Path, name: str) -> list[Path]:
    """The image files of one class, in order; what is hidden is left out.

    Raises:
        UserError: A link leads out of the directory.
    """
    inside = root.resolve()
    folder = root / name
    refuse_leaving(folder, inside)
    return [path for path in _walk(folder, inside) if path.suffix.lower() in SUFFIXES]


def refuse_leaving(path: Path, inside: Path) -> None:
    """Refuse a link that leads out of a directory.

    Raises:
        UserError: It does.
    """
    if path.is_symlink() and not path.resolve().is_relative_to(inside):
        raise UserError(f"{path} is a link out of {inside}; copy what it leads to into the directory")


def _walk(folder: Path, inside: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        for entry in (*folders, *files):
            refuse_leaving(Path(parent) / entry, inside)
        yield from (Path(parent) / file for file in sorted(files) if not _is_hidden(file))


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _visible(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if not _is_hidden(entry.name))


def _images_in(folder: Path) -> bool:
    return any(entry.suffix.lower() in SUFFIXES and entry.is_file() for entry in _visible(folder))


def _part_of(folder: Path) -> str:
    name = re.sub(r"[-. ]+", "_", without_accents(folder.name.lower()))
    while name not in SPELLINGS and (shorter := _BESIDE.sub("", name).strip("_")) != name:
        name = shorter
    return SPELLINGS.get(name, "")


def _only_folder(root: Path) -> Path:
    """The folder with all that there is, of folders that hold one folder each, as archives are unpacked."""
    while len(inside := class_folders(root, least=0)) == 1 and not _images_in(root):
        if not class_folders(inside[0], least=0) or inside[0].is_symlink():
            break
        root = inside[0]
    return root


def _parts(root: Path) -> dict[Path, str]:
    """The folders that are parts of the data set: training with folders of classes in it, and another beside it."""
    found = {
        folder: part
        for folder in class_folders(root, least=0)
        if (part := _part_of(folder)) and len(class_folders(folder, least=0)) >= (2 if part == TRAIN else 1)
    }
    if TRAIN not in found.values() or len(found) < 2:
        return {}
    # A class may be called "test" among others: the parts have classes in common.
    train = {one.name for folder, part in found.items() if part == TRAIN for one in class_folders(folder)}
    others = {
        one.name for folder, part in found.items() if part != TRAIN for one in class_folders(folder, least=0)
    }
    return (
        dict(sorted(found.items(), key=lambda item: (TRAIN, VALIDATION, TEST).index(item[1])))
        if (train & others)
        else {}
    )


def _add_classes(found: Listing, root: Path, part: str) -> None:
    for folder in class_folders(root, least=0):
        files = image_files(root, folder.name)
        if not files:
            log.warning("%s holds no image: it is no class", folder)
        found.add(files, folder.name, part)


def content_digest(root: Path, files: Sequence[Path], settings: object) -> str:
    """A hash of the files' names and contents and of the settings that shape what is made from them.

    Raises:
        UserError: A file cannot be read at the moment.
    """
    from concurrent.futures import ThreadPoolExecutor

    state = hashlib.blake2b(repr(settings).encode(), digest_size=12)

    def one(path: Path) -> bytes:
        # From the root, also for a test beside it: the same on every machine.
        own = hashlib.blake2b(os.path.relpath(path, root).encode() + b"\0", digest_size=16)
        try:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    own.update(block)
        except OSError as error:
            refuse_passing(error, path)
            own.update(f"error {error.errno}".encode())
        return own.digest()

    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        for part in pool.map(one, files):
            state.update(part)
    return state.hexdigest()


def stat_digest(root: Path, files: Sequence[Path], settings: object) -> str:
    """A hash of the files' names, sizes and times of change, and of the settings: what changes with any of them."""
    state = hashlib.blake2b(repr((str(root.absolute()), settings)).encode(), digest_size=12)
    for path in files:
        try:
            found = path.stat()
            facts = (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)
        except OSError as error:
            facts = (error.errno or 0, 0, 0, 0)
        state.update(f"{path}\0{facts}\n".encode())
    return state.hexdigest()


def kept_digest(data_dir: Path, root: Path, files: Sequence[Path], settings: object) -> str:
    """The :func:`content_digest`, kept in the cache as long as no file is written to: reading all takes a while."""
    place = data_dir / "cache" / "image-digests" / stat_digest(root, files, settings)
    try:
        if len(known := place.read_text(encoding="ascii")) == 24:
            return known
    except (OSError, ValueError):
        # Not there, or not to be read: it is found out again.
        pass
    found = content_digest(root, files, settings)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_text(place, found)
    except OSError:
        log.debug("%s cannot be written to", place)
    return found
