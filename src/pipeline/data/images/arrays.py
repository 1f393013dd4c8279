"""Images in one ``.npz`` file of NumPy arrays, by the names that such files use."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from pipeline.data.images.decoding import AS_A_WHOLE, Resizing
from pipeline.data.images.encoders import ResizingImageEncoder
from pipeline.data.images.layouts import SPELLINGS
from pipeline.errors import UserError

_IMAGES = ("x", "images", "image", "imgs", "data", "pixels")
_LABELS = ("y", "labels", "label", "targets", "target")
_NAMES = ("classes", "class_names", "names", "label_names")


def read_arrays(
    path: Path, shape: Sequence[int], how: Resizing = AS_A_WHOLE
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The images of a ``.npz`` file: ``x`` and ``y``, ``images`` and ``labels``, ``x_train``, ``test_images`` …

    Args:
        path: The file; its images are 0–255, (samples, height, width) or (samples, height, width, channels). An array
            called ``classes`` may name the classes.
        shape: Channels, height and width that the images become.
        how: How they are resized.

    Returns:
        ``uint8`` (samples, channels, height, width), the name of each image's class, and the part that it belongs to
        (empty where nothing says so).

    Raises:
        UserError: It is no such file, or its arrays cannot be told apart.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            held = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is no .npz file of numbers: {error}") from None
    images, labels, names = {}, {}, None
    for name, array in held.items():
        part, what = _meant(name)
        if what in _IMAGES:
            images[part] = array
        elif what in _LABELS:
            labels[part] = array
        elif what in _NAMES:
            names = [str(one) for one in array.tolist()]
    if not images or images.keys() != labels.keys():
        raise UserError(
            f"{path} holds {', '.join(held) or 'nothing'}; expected images with as many labels: x and y, or images and "
            "labels, alone or of parts (x_train and y_train, test_images and test_labels)"
        )
    encoder = ResizingImageEncoder(list(shape), [], [], **asdict(how))
    width = max(
        (len(str(one.max())) for one in labels.values() if one.size and one.dtype.kind in "iu"), default=1
    )
    found, said, parts = [], [], []
    for part, array in images.items():
        numbers = labels[part]
        if numbers.ndim == 2 and numbers.shape[1] == 1:
            numbers = numbers[:, 0]
        if numbers.ndim != 1 or len(numbers) != len(array):
            raise UserError(
                f"{path}: labels of the shape {numbers.shape}, images of {array.shape}; expected a label a sample"
            )
        found.append(encoder.encode(_in_bytes(array)).numpy())
        if names is not None and np.issubdtype(numbers.dtype, np.integer):
            if len(numbers) and not 0 <= numbers.min() <= numbers.max() < len(names):
                raise UserError(
                    f"{path}: labels from {numbers.min()} to {numbers.max()}, but {len(names)} classes"
                )
            said += [names[number] for number in numbers]
        else:
            said += _in_words(numbers, width)
        parts += [part] * len(array)
    return np.concatenate(found), np.asarray(said, dtype=object), np.asarray(parts, dtype=object)


def _meant(name: str) -> tuple[str, str]:
    """The part that an array's name stands for, and what it holds."""
    words = name.lower().replace("-", "_").split("_")
    part = next((SPELLINGS[word] for word in words if word in SPELLINGS), "")
    return part, "_".join(word for word in words if word not in SPELLINGS)


def _in_bytes(array: np.ndarray) -> np.ndarray:
    """Shares of full brightness, as which many files hold pixels, as numbers from 0 to 255."""
    if array.dtype.kind == "f" and array.size and 0 <= array.min() <= array.max() <= 1:
        return np.round(array * 255)
    return array


def _in_words(labels: np.ndarray, width: int) -> list[str]:
    """Labels as names that sort as the labels do: whole numbers get leading zeros up to a width."""
    if not np.issubdtype(labels.dtype, np.integer):
        return [str(label) for label in labels.tolist()]
    return [f"{label:0{width}d}" for label in labels.tolist()]
