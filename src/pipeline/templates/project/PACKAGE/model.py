"""A small network."""

from torch import Tensor, nn


class Small(nn.Module):
    """Two hidden layers.

    Args:
        inputs: Numbers in a sample.
        outputs: Number of logits.
        width: Units of each hidden layer.
    """

    def __init__(self, inputs: int, outputs: int, width: int = 32) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
