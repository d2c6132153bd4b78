"""A linear layer and the activation after it."""

from .linear import activate, linear, linear_of_each, mlp, prepacked
from .panels import Panels, in_panels

__all__ = ["Panels", "activate", "in_panels", "linear", "linear_of_each", "mlp", "prepacked"]
