"""From RGB images to normalised pixels: the resize policy and CLIP's normalisation. Needs no torch."""

from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

import numpy as np
from PIL import Image

from .images import MAX_PIXELS, ImageError

if TYPE_CHECKING:
    from torch import Tensor

ResizePolicy: TypeAlias = Literal["shorter", "squash", "exact"]


# Attention is quadratic in tokens. ViT-B/16 takes 44 s for 12,544 of them, 1792 × 1792, on the reference machine's two
# cores; these are 4096 × 4096, 27 times that work.
MAX_TOKENS = 65_536
# A long image may take 8 times the tokens of a square one, and always so many (0.9 s with gem-tiny on one thread): what
# a thread takes beyond is time that no one has asked for by the size.
MAX_STRETCH = 8
FREE_TOKENS = 2_048


def unbounded_size(image_size: tuple[int, int], size: int, policy: ResizePolicy, patch: int) -> tuple[int, int]:
    """As `input_size`, however large it gets: for an engine that takes the nearest of a few sizes."""
    height, width = image_size
    if policy == "shorter":
        scale = size / min(height, width)
        height, width = round(height * scale), round(width * scale)
    elif policy == "squash":
        height = width = size
    elif policy != "exact":
        raise ValueError(f"resize must be one of {', '.join(get_args(ResizePolicy))}, got {policy!r}")
    return max(1, round(height / patch)) * patch, max(1, round(width / patch)) * patch


def input_size(image_size: tuple[int, int], size: int, policy: ResizePolicy, patch: int) -> tuple[int, int]:
    """Height and width of the model's input for an image of that height and width.

    - `"shorter"`: the shorter side becomes `size` and the aspect ratio stays, as in the paper's evaluation. A side
      that would take more than `MAX_STRETCH` times the tokens of `size` × `size`, and more than `FREE_TOKENS`, is
      squashed to as many: attention is quadratic, and threads and strips would take minutes.
    - `"squash"`: `size` × `size`, as the authors' package does.
    - `"exact"`: the image's own size, whatever `size` says.

    Each side is then rounded to the nearest multiple of the patch, and is at least one patch.

    Raises:
        ImageError: the input would have more than `MAX_TOKENS` tokens, or under "shorter", before anything is squashed,
            more than `MAX_PIXELS`. ValueError: no such policy.
    """
    height, width = unbounded_size(image_size, size, policy, patch)
    if policy == "shorter" and height * width <= MAX_PIXELS:
        square = max(1, round(size / patch)) ** 2
        most = min(MAX_TOKENS, max(FREE_TOKENS, MAX_STRETCH * square)) * patch**2
        longest = max(min(height, width), most // min(height, width) // patch * patch)
        height, width = min(height, longest), min(width, longest)
    if height * width > min(MAX_TOKENS * patch**2, MAX_PIXELS):
        raise ImageError(
            f"an image of {image_size[1]}×{image_size[0]} would become an input of {width}×{height}, "
            f"{height * width // patch**2:,} tokens of at most {MAX_TOKENS:,}, and the time grows with their square; "
            "take a smaller size, or the resize policy squash"
        )
    return height, width


INTERPOLATIONS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
Picture: TypeAlias = Image.Image | np.ndarray  # RGB; an array is `[H, W, 3]` uint8


def resized(image: Picture, size: tuple[int, int], interpolation: str = "bicubic") -> np.ndarray:
    """An RGB image resized, bicubic or bilinear with antialias, to height and width: `[H, W, 3]` uint8."""
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    return np.asarray(image.resize((size[1], size[0]), INTERPOLATIONS[interpolation]))


def resized_by_torch(image: Picture, size: tuple[int, int], interpolation: str = "bicubic") -> np.ndarray:
    """The same by torch, bicubic or bilinear, whose rounding differs by 1 of 255 at a few pixels."""
    import torch

    array = np.asarray(image)
    if array.shape[:2] == tuple(size):
        return array
    # Channels last, which its fast path takes and keeps; what can't be written, torch won't have.
    pixels = torch.from_numpy(np.require(array, requirements=["C", "W"]))[None].permute(0, 3, 1, 2)
    resized = torch.nn.functional.interpolate(pixels, size, mode=interpolation, antialias=True)
    return resized.permute(0, 2, 3, 1)[0].contiguous().numpy()


def normalised(pixels: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """RGB pixels `[B, H, W, 3]` uint8, normalised: `[B, 3, H, W]` float32."""
    values = pixels.transpose(0, 3, 1, 2).astype(np.float32, order="C")
    values /= 255
    values -= np.array(mean, np.float32)[:, None, None]
    values /= np.array(std, np.float32)[:, None, None]
    return values


def normalised_tensor(pixels: "Tensor", mean: tuple[float, ...], std: tuple[float, ...]) -> "Tensor":
    """`normalised` of a tensor, where it is: the same steps, and on the CPU the same bits."""
    values = pixels.permute(0, 3, 1, 2).float().div_(255)
    middle, spread = (values.new_tensor(each)[:, None, None] for each in (mean, std))
    return values.sub_(middle).div_(spread).contiguous()


def to_pixels(image: Image.Image, size: tuple[int, int], mean: tuple[float, ...], std: tuple[float, ...]) -> "Tensor":
    """An RGB image resized to height and width, and normalised: `[3, H, W]` float32."""
    import torch

    return torch.from_numpy(normalised(resized(image, size)[None], mean, std))[0]
