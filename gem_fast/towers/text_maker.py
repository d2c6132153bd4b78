"""Text towers to be made, and open_clip's own among them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from .shapes import text_shapes
from .text_config import TextConfig
from .text_tower import pack_text
from .untrained import untrained


class TextMaker(ABC):
    """A text tower to be made: what weights it takes, under open_clip's names without `text.`."""

    @abstractmethod
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of its weights."""

    @abstractmethod
    def made(self, state: dict[str, Tensor]) -> nn.Module:
        """The tower with these weights, which are float32."""

    def taken(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The state without what the tower does not use."""
        return state

    def random(self) -> dict[str, Tensor]:
        """Untrained weights."""
        return untrained(self.shapes())


@dataclass(frozen=True)
class OwnText(TextMaker):
    """open_clip's text transformer, by our own forward."""

    config: TextConfig

    def shapes(self) -> dict[str, tuple[int, ...]]:
        return text_shapes(self.config)

    def made(self, state: dict[str, Tensor]) -> nn.Module:
        return pack_text(state, self.config)
