"""A linear layer of the towers."""

from torch import Tensor, nn

from gem_fast.kernels import linear


class Linear(nn.Linear):
    """A linear layer and the activation after it, if any."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True, activation: str | None = None) -> None:
        super().__init__(inputs, outputs, bias)
        self.activation = activation

    def forward(self, x: Tensor, backend: str | None = None) -> Tensor:
        return linear(x, self.weight, self.bias, self.activation, backend)
