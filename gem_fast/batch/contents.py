"""What stands in for an image's file: bytes of an archive, a URL, or why there is none.

Each is small, so that a million can be listed. It has the `image`, what it is told by, and `read`, which gives
its bytes or raises an ImageError or OSError.
"""

from dataclasses import dataclass

from ..errors import ImageError
from .remote import open_binary

MAX_BYTES = 1 << 30  # of one image; the largest that is decoded has 716 MB uncompressed


@dataclass(frozen=True)
class Stretch:
    """Bytes of a file: a member of a tar archive."""

    image: str
    file: str
    offset: int
    size: int

    def read(self) -> bytes:
        with open_binary(self.file) as file:
            file.seek(self.offset)
            content = file.read(self.size)
        if len(content) < self.size:
            raise ImageError(f"{self.image}: {self.file} ends within it")
        return content


@dataclass(frozen=True)
class Remote:
    """A file behind a URL."""

    image: str

    def read(self) -> bytes:
        with open_binary(self.image) as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise ImageError(f"{self.image}: larger than {MAX_BYTES:,} bytes")
        return content


@dataclass(frozen=True)
class Refused:
    """Nothing that may be read: it fails, with the reason."""

    image: str
    reason: str

    def read(self) -> bytes:
        raise ImageError(f"{self.image}: {self.reason}")
