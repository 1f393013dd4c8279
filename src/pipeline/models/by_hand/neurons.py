"""Two neurons in plain Python: forward, squared loss, gradient, update. Nothing is imported to compute with."""

from __future__ import annotations

from collections.abc import Sequence

Gradient = tuple[float, float]
"""How the loss of one point changes with the weight, and with the bias."""


class Neuron:
    """One linear neuron, ``f(x) = w·x + b``, for points of a plane.

    Args:
        weight: The w to begin with.
        bias: The b to begin with.

    Example:
        >>> neuron = Neuron()
        >>> for epoch in range(100):
        ...     for x in (1, 2, 3, 4):
        ...         loss = neuron.learn(x, 2 * x, rate=0.01)
        >>> neuron.forward(7)
        13.786374872617987
    """

    def __init__(self, weight: float = 0.0, bias: float = 0.0) -> None:
        self.weight, self.bias = weight, bias

    def forward(self, x: float) -> float:
        """What it answers for x: w·x + b."""
        return self.weight * x + self.bias

    def loss(self, x: float, y: float) -> float:
        """How wrong that is: (f(x) − y)²."""
        return (self.forward(x) - y) ** 2

    def gradient(self, x: float, y: float) -> Gradient:
        """How the loss changes with w, 2·(f(x) − y)·x, and with b, 2·(f(x) − y)."""
        slope = 2 * (self.forward(x) - y)
        return slope * x, slope

    def update(self, gradient: Gradient, rate: float) -> None:
        """A step downhill: each value goes against its part of the gradient, as far as ``rate`` says."""
        self.weight -= rate * gradient[0]
        self.bias -= rate * gradient[1]

    def learn(self, x: float, y: float, rate: float) -> float:
        """One step for one point; gives the loss before it."""
        loss = self.loss(x, y)
        self.update(self.gradient(x, y), rate)
        return loss


class ReluNeurons:
    """A hidden layer of ReLU units below a linear one: ``f(x) = Σ v·max(0, w·x + b) + c``.

    Args:
        weights: The w of each hidden unit.
        biases: The b of each hidden unit.
        outputs: The v of each hidden unit.
        bias: The c.

    Example:
        >>> units = ReluNeurons([0.1, -0.1], [0.0, 0.0], [0.1, 0.1], 0.0)
        >>> for epoch in range(100):
        ...     for x in (1, 2, 3, 4, 5):
        ...         loss = units.learn(x, 2 * x, rate=0.01)
        >>> units.forward(9)
        17.99692772369434
    """

    def __init__(
        self, weights: Sequence[float], biases: Sequence[float], outputs: Sequence[float], bias: float
    ) -> None:
        self.weights, self.biases, self.outputs, self.bias = (
            list(weights),
            list(biases),
            list(outputs),
            bias,
        )

    def inner(self, x: float) -> list[float]:
        """What reaches each hidden unit: w·x + b."""
        return [w * x + b for w, b in zip(self.weights, self.biases, strict=True)]

    def forward(self, x: float) -> float:
        """What they answer for x."""
        return sum(v * max(0.0, z) for v, z in zip(self.outputs, self.inner(x), strict=True)) + self.bias

    def loss(self, x: float, y: float) -> float:
        """How wrong that is: (f(x) − y)²."""
        return (self.forward(x) - y) ** 2

    def gradient(self, x: float, y: float) -> tuple[list[Gradient], list[float], float]:
        """How the loss changes with each (w, b), each v, and c.

        The chain rule, from the loss inwards: d = 2·(f(x) − y) for c; d·max(0, z) for v; and where the unit is on
        (z > 0), d·v for b and d·v·x for w. A unit that is off learns nothing.
        """
        slope = 2 * (self.forward(x) - y)
        inner = self.inner(x)
        back = [slope * v * (z > 0) for v, z in zip(self.outputs, inner, strict=True)]
        return [(d * x, d) for d in back], [slope * max(0.0, z) for z in inner], slope

    def update(self, gradient: tuple[list[Gradient], list[float], float], rate: float) -> None:
        """A step downhill, see :meth:`Neuron.update`."""
        hidden, outputs, bias = gradient
        for i, (weight_slope, bias_slope) in enumerate(hidden):
            self.weights[i] -= rate * weight_slope
            self.biases[i] -= rate * bias_slope
            self.outputs[i] -= rate * outputs[i]
        self.bias -= rate * bias

    def learn(self, x: float, y: float, rate: float) -> float:
        """One step for one point; gives the loss before it."""
        loss = self.loss(x, y)
        self.update(self.gradient(x, y), rate)
        return loss
