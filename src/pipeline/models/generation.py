"""Writing text with a model that predicts the next character."""

from __future__ import annotations

import torch
from torch import Tensor

from pipeline.data.core.spec import Spec
from pipeline.data.text.encoders import CharacterEncoder
from pipeline.errors import UserError
from pipeline.models.base import BaseModule


def predicts_characters(spec: Spec) -> bool:
    """Whether a model of such data says which character comes next, so that it can write."""
    return (
        spec.task == "multiclass"
        and spec.per_step
        and spec.input == "tokens"
        and spec.vocabulary == spec.outputs
    )


def check_prompt(model: BaseModule, prompt: str) -> None:
    """Refuse a prompt with characters that the model cannot know.

    Raises:
        UserError: A character did not occur in the training text.
    """
    known = model.spec.classes[1:]
    if unknown := sorted(set(prompt) - set(known)):
        shown = ", ".join(map(repr, unknown[:10])) + (", …" if len(unknown) > 10 else "")
        raise UserError(
            f"the prompt {prompt!r} holds characters that the training text does not: {shown}. Expected some of the "
            f"{len(known)} it knows: {''.join(known)!r}"
        )


def generate(
    model: BaseModule,
    length: int = 200,
    prompt: str = "",
    temperature: float = 1.0,
    top_k: int | None = None,
    seed: int = 0,
) -> str:
    """Go on with a text, one character after the other.

    A model with a state reads each character once; one without (a network from elsewhere) reads the whole text again
    for each. The same seed gives the same text; no other random generator is touched.

    Args:
        model: Model that predicts characters: its spec's classes are the characters, of which the first one stands for
            unknown ones and is never written.
        length: Number of characters to write.
        prompt: Text that the model reads first; an empty one begins with a character drawn at random.
        temperature: Below 1 the likely characters get likelier, above 1 less likely; 0 takes the likeliest.
        top_k: Number of likeliest characters to choose among, None for all.
        seed: Seed of the choice.

    Returns:
        The new characters, without the prompt.

    Raises:
        UserError: The model does not predict characters, or an argument is out of its range.
    """
    _check(model, length, temperature, top_k)
    generator = torch.Generator().manual_seed(seed)
    encoder = CharacterEncoder(list(model.spec.classes[1:]))
    read = encoder.ids(prompt) if prompt else torch.randint(1, model.spec.outputs, (1,), generator=generator)
    was_training = model.training
    model.eval()
    written: list[Tensor] = []
    try:
        # Not inference mode: a fit that goes on afterwards must be able to use what layers keep from here.
        with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
            text = read[None].to(model.device)
            logits, state = model.forward_state(text, None)
            while len(written) < length:
                choice = _choose(logits[0, -1].cpu(), temperature, top_k, generator)
                written.append(choice)
                following = choice.view(1, 1).to(model.device)
                text = following if state is not None else torch.cat([text, following], 1)
                logits, state = model.forward_state(text, state)
    finally:
        model.train(was_training)
    return encoder.decode(torch.cat(written)) if written else ""


def _choose(logits: Tensor, temperature: float, top_k: int | None, generator: torch.Generator) -> Tensor:
    """One id (1,) drawn from logits (characters,)."""
    logits = logits.double()
    logits[0] = -torch.inf
    if temperature == 0:
        return logits.argmax().view(1)
    if top_k is not None and top_k < len(logits) - 1:
        logits[logits.argsort(descending=True)[top_k:]] = -torch.inf
    return torch.multinomial((logits / temperature).softmax(0), 1, generator=generator)


def _check(model: BaseModule, length: int, temperature: float, top_k: int | None) -> None:
    if not predicts_characters(model.spec):
        raise UserError("this model does not predict characters: train one with data=kafka or data=text_file")
    if length < 0 or temperature < 0 or (top_k is not None and top_k < 1):
        raise UserError(
            f"length={length}, temperature={temperature}, top_k={top_k}: expected a length of at least 0, a "
            "temperature of at least 0, and a top_k of at least 1 or null"
        )
