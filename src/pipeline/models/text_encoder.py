"""A network that has read much and gives each text a place in space, with a linear layer above it."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from pipeline.data.core.spec import Spec
from pipeline.errors import UserError, reason_of
from pipeline.models.foreign import Wrapped
from pipeline.models.sentences import Description, described
from pipeline.models.weights import Prepared, give, read
from pipeline.settings import Text, Word

log = logging.getLogger(__name__)

_DEFAULT = "all-MiniLM-L6-v2"
_OLD_NAMES = {"gamma": "weight", "beta": "bias"}
"""How the first published weights call those of a normalisation."""


class TextEncoder(Wrapped):
    """A sentence encoder with its weights, and a linear layer that answers from what it makes of a text.

    Its body is a Transformer of the library transformers, or, without one, embeddings of pieces of words. Texts come as
    the pieces that its own tokenizer splits them into, which becomes part of the data's encoder.

    Args:
        spec: Description of the data: texts as pieces of words, one class each.
        name: Name of a published network.
        weights: ``DEFAULT`` for the published ones of ``name``; a directory, or ``package:PACKAGE/DIRECTORY``.
        layers: What a text's place is made of: what ``all`` layers make of its pieces, beside each other, or the
            ``last`` one alone, as the network was published. The last is about what a text treats; how it says so is
            in those before it.
        net: Description of the network, which follows from its files.
        **shared: Settings of networks with weights, see :class:`Wrapped`, and of every model.

    Raises:
        UserError: The weights are not to be had, a library is missing, or the data is no texts.
    """

    ignores_padding = True

    def __init__(
        self,
        spec: Spec | dict[str, Any],
        name: Annotated[str, Text("the name of a network, like all-MiniLM-L6-v2")] = _DEFAULT,
        weights: Annotated[str | None, Text("DEFAULT, a directory or package:PACKAGE/DIRECTORY")] = "DEFAULT",
        layers: Annotated[str, Word(("all", "last"))] = "all",
        net: Mapping[str, Any] | None = None,
        **shared: Any,
    ) -> None:
        data = spec if isinstance(spec, Spec) else Spec.from_dict(spec)
        if data.input != "tokens" or data.per_step or data.unordered:
            raise UserError(
                "model=text_encoder is for texts with a class each (data=text_csv, text_folder, imdb …), but this "
                f"data gives {data.input}"
            )
        if net is None:
            raise UserError("model=text_encoder begins with weights; set model.weights=DEFAULT")
        self.name = name
        built = Sentences({**net, "layers": layers}, data.outputs, data.vocabulary - 1)
        super().__init__(data, built, weights=weights, **shared)

    @classmethod
    def prepared(cls, settings: Mapping[str, Any]) -> Prepared | None:
        return None if settings.get("weights", "DEFAULT") is None else Prepared()

    @classmethod
    def _described(cls, settings: Mapping[str, Any], data_dir: Path) -> Description:
        name, weights = settings.get("name") or _DEFAULT, settings.get("weights", "DEFAULT")
        return described(str(name), str(weights), data_dir)

    @classmethod
    def wants(cls, settings: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
        """Texts as the pieces of its tokenizer, no more of them than it takes."""
        if "tokenizer" not in data:
            return {}
        found = cls._described(settings, Path(str(data["data_dir"])))
        longest = min((n for n in (data.get("max_length"), found.longest) if n is not None), default=None)
        return {"tokenizer": data["tokenizer"] or str(found.tokenizer), "max_length": longest}

    @classmethod
    def of_files(cls, settings: Mapping[str, Any], data_dir: Path) -> dict[str, Any]:
        found = cls._described(settings, data_dir)
        about: dict[str, Any] = {"pooling": found.pooling, "normalised": found.normalised}
        if found.config is not None:
            return {"net": {"transformer": found.config, **about}}
        return {"net": {"embeddings": [*_matrix(found.weights).shape], **about}}

    def find_weights(self, data_dir: Path) -> Path:
        return self._described({"name": self.name, "weights": self.weights}, data_dir).weights

    def begin_with(self, path: Path) -> None:
        body = self.net.get_submodule("body")
        if isinstance(body, Embeddings):
            give(body, {"pieces.weight": _matrix(path).float()}, None, str(path))
        else:
            give(body, _of_body(read(path), body), None, str(path))
        log.info("the weights of %s; new: the last layer", path)


class Sentences(nn.Module):
    """A body that gives each piece of a text a place, one place for the text, and a linear layer.

    Args:
        description: ``transformer`` (settings of the library transformers) or ``embeddings`` (rows and length), and
            ``pooling`` and ``normalised``, see :class:`~pipeline.models.sentences.Description`, and ``layers``.
        outputs: Number of outputs.
        pieces: Number of pieces that the data's tokenizer knows.

    Raises:
        UserError: The tokenizer knows more pieces than the body, or the body cannot be built.
    """

    def __init__(self, description: Mapping[str, Any], outputs: int, pieces: int) -> None:
        super().__init__()
        self.description = dict(description)
        self.pooling, self.normalised = str(description["pooling"]), bool(description["normalised"])
        self.padding, self.every = 0, False
        if "embeddings" in description:
            rows, width = (int(number) for number in description["embeddings"])
            self.body: Any = Embeddings(rows, width)
        else:
            self.body = _transformer(description["transformer"])
            config = self.body.config
            rows, width, self.padding = config.vocab_size, config.hidden_size, config.pad_token_id or 0
            self.every = description["layers"] == "all"
            width *= config.num_hidden_layers + 1 if self.every else 1
        if pieces > rows:
            raise UserError(
                f"data.tokenizer knows {pieces:,} pieces of words, the network {rows:,}: it is another network's"
            )
        self.head = nn.Linear(width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        there = x != 0
        more = {"output_hidden_states": True} if self.every else {}
        ids = torch.where(there, x - 1, self.padding)
        found = self.body(input_ids=ids, attention_mask=there.to(torch.long), **more)
        layers = found.hidden_states if self.every else [getattr(found, "last_hidden_state", found)]
        answer: Tensor = self.head(torch.cat([self._place(places, there) for places in layers], 1))
        return answer

    def _place(self, places: Tensor, there: Tensor) -> Tensor:
        """The place of each text, of those of its pieces (texts, pieces, length)."""
        if self.pooling == "first":
            place = places[:, 0]
        else:
            mask = there.unsqueeze(-1).to(places.dtype)
            place = (places * mask).sum(1) / mask.sum(1).clamp(min=1)
        return nn.functional.normalize(place, dim=1) if self.normalised else place

    def extra_repr(self) -> str:
        return json.dumps(self.description, sort_keys=True)


class Embeddings(nn.Module):
    """A place for each piece, whatever stands beside it.

    Args:
        pieces: Number of pieces.
        width: Length of a place.
    """

    def __init__(self, pieces: int, width: int) -> None:
        super().__init__()
        self.pieces = nn.Embedding(pieces, width)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        found: Tensor = self.pieces(input_ids)
        return found


def _transformer(config: Mapping[str, Any]) -> nn.Module:
    try:
        from transformers import AutoConfig, AutoModel
    except ImportError:
        raise UserError(
            "model=text_encoder needs the package transformers: pip install 'hydra-lightning-pipeline[texts]'"
        ) from None
    try:
        # By name from those that the library brings; no code of anybody else's is run.
        settings = AutoConfig.for_model(**config)
        body: nn.Module = AutoModel.from_config(settings, trust_remote_code=False, dtype=torch.float32)
    except (ValueError, TypeError, KeyError, AttributeError, ImportError) as error:
        reason = reason_of(error)
        raise UserError(
            f"model.weights: config.json describes no network that can be built: {reason}"
        ) from None
    if getattr(body, "pooler", None) is not None:
        # A layer for another task, which what is learnt here never sees.
        body.pooler = None  # type: ignore[assignment]
    return body


def _matrix(path: Path) -> Tensor:
    """The one matrix of a file of embeddings."""
    found = [value for value in read(path).values() if value.dim() == 2]
    if len(found) != 1:
        raise UserError(
            f"{path} holds {len(found)} matrices; expected one of embeddings, or a config.json beside it that "
            "describes the network"
        )
    return found[0]


def _of_body(weights: Mapping[str, Tensor], body: nn.Module) -> dict[str, Tensor]:
    """The weights of the body by its own names, without those of what stood above it."""
    own = body.state_dict().keys()
    prefix = f"{getattr(body, 'base_model_prefix', '')}."
    found = {}
    for name, value in weights.items():
        bare = name.removeprefix(prefix)
        stem, _, last = bare.rpartition(".")
        bare = bare if bare in own else f"{stem}.{_OLD_NAMES.get(last, last)}"
        if bare in own:
            found[bare] = value
    return found
