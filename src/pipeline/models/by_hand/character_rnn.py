"""A character RNN in NumPy: forward, softmax loss, the chain rule backwards, clipping, Adagrad, sampling."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]
Arrays = dict[str, Array]
Numbers = np.ndarray[Any, np.dtype[np.int64]]

TINY = 1e-10
"""What Adagrad adds to its root, so that nothing is divided by 0."""


class CharacterRNN:
    """Reads characters one by one, keeps what it has read in a state, and says which one comes next.

    ``h = tanh(Wxh·x + bxh + Whh·h + bhh)``, ``p = softmax(Why·h + by)``; x is 1 at the character's number and 0
    elsewhere, so that Wxh·x is a column of Wxh. There are two biases where one would do, as PyTorch's layer has them.

    Args:
        weights: ``Wxh`` (units, characters), ``Whh`` (units, units), ``Why`` (characters, units), ``bxh`` and ``bhh``
            (units,), ``by`` (characters,), float64.

    Attributes:
        memory: What Adagrad has added up of each value's squared gradients.
    """

    def __init__(self, weights: Arrays) -> None:
        self.weights = {name: np.array(value, dtype=np.float64) for name, value in weights.items()}
        self.memory = {name: np.zeros_like(value) for name, value in self.weights.items()}

    def start(self) -> Array:
        """The state before anything was read: (units,) zeros."""
        return np.zeros(len(self.weights["bxh"]))

    def forward(self, inputs: Numbers, state: Array) -> tuple[Array, Array]:
        """Read some characters.

        Args:
            inputs: Their numbers, (steps,).
            state: The state before them, (units,).

        Returns:
            States (steps + 1, units), the given one first, and the probability of each character to come next
            (steps, characters).
        """
        w, states = self.weights, [state]
        for character in inputs:
            state = np.tanh(w["Wxh"][:, character] + w["bxh"] + w["Whh"] @ state + w["bhh"])
            states.append(state)
        hidden = np.array(states)
        logits = hidden[1:] @ w["Why"].T + w["by"]
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return hidden, powers / powers.sum(axis=1, keepdims=True)

    def loss(self, probabilities: Array, targets: Numbers) -> float:
        """The sum over the steps of −ln p(the character that came), in nats."""
        return float(-np.log(probabilities[np.arange(len(targets)), targets]).sum())

    def backward(self, inputs: Numbers, targets: Numbers, states: Array, probabilities: Array) -> Arrays:
        """How that sum changes with every weight: the chain rule from the last step back to the first.

        Args:
            inputs: Numbers of the characters that were read, (steps,).
            targets: Numbers of those that came next, (steps,).
            states: What :meth:`forward` gave.
            probabilities: What :meth:`forward` gave.
        """
        w, steps = self.weights, len(inputs)
        outputs = probabilities.copy()
        # Softmax and logarithm together: p − 1 for the character that came, p for every other.
        outputs[np.arange(steps), targets] -= 1
        raw = np.empty((steps, len(w["bxh"])))
        later = self.start()
        for step in reversed(range(steps)):
            # What reaches a state: from its own step's output, and from the step after it. tanh' = 1 − h².
            raw[step] = (1 - states[step + 1] ** 2) * (w["Why"].T @ outputs[step] + later)
            later = w["Whh"].T @ raw[step]
        inwards = np.zeros_like(w["Wxh"])
        np.add.at(inwards.T, inputs, raw)
        return {
            "Wxh": inwards,
            "Whh": raw.T @ states[:-1],
            "Why": outputs.T @ states[1:],
            "bxh": raw.sum(0),
            "bhh": raw.sum(0),
            "by": outputs.sum(0),
        }

    def update(self, gradients: Arrays, rate: float, clip: float | None = None) -> None:
        """A step of Adagrad: each value goes by rate · gradient / √(all its squared gradients so far).

        Args:
            gradients: What :meth:`backward` gave.
            rate: Learning rate.
            clip: Largest size of any part of the gradient, None for any: a long chain of products may explode.
        """
        for name, gradient in gradients.items():
            part = gradient if clip is None else np.clip(gradient, -clip, clip)
            self.memory[name] += part**2
            self.weights[name] -= rate * part / (np.sqrt(self.memory[name]) + TINY)

    def learn(
        self, inputs: Numbers, targets: Numbers, state: Array, rate: float, clip: float | None = None
    ) -> tuple[float, Array]:
        """One step for one piece of text.

        Returns:
            The loss before it, summed over the piece, and the state after the piece, where the next one goes on: it is
            carried over, the chain rule ends here (truncated backpropagation through time).
        """
        states, probabilities = self.forward(inputs, state)
        self.update(self.backward(inputs, targets, states, probabilities), rate, clip)
        return self.loss(probabilities, targets), states[-1]

    def sample(
        self, length: int, first: int, draw: np.random.Generator, temperature: float = 1.0
    ) -> list[int]:
        """Characters that it writes, each drawn from what it says after the one before.

        Args:
            length: Number of characters.
            first: Number of the character that it reads first.
            draw: Source of the choices.
            temperature: Below 1 the likely characters get likelier; 0 takes the likeliest.
        """
        state, written = self.start(), [first]
        while len(written) <= length:
            states, probabilities = self.forward(np.array(written[-1:]), state)
            state, p = states[-1], probabilities[0]
            # Number 0 stands for what is unknown, which is not to be written.
            p[0] = 0.0
            if temperature == 0:
                written.append(int(p.argmax()))
                continue
            p = (p / p.max()) ** (1 / temperature)
            written.append(int(draw.choice(len(p), p=p / p.sum())))
        return written[1:]
