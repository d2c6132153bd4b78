"""The image formats that are read, those that are refused by name, and how a file's first bytes tell them apart."""

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import BinaryIO

from ..errors import ImageError

_HEAD = 64  # bytes that tell every format below


@dataclass(frozen=True)
class Format:
    """One format that is read: its name, the plugin of Pillow that reads it, and the endings that folders look for.

    Attributes:
        module: registers the plugin, or is there only where Pillow can read the format.
        needs: what to install where the module is missing.
    """

    name: str
    plugin: str
    endings: tuple[str, ...]
    module: str = "PIL.Image"
    needs: str = ""

    def why_not(self) -> str | None:
        """Why it can't be read here; None if it can."""
        try:
            module = import_module(self.module)
        except ImportError:
            return self.needs
        if self.plugin == "HEIF":
            module.register_heif_opener()
        return None if getattr(module, "SUPPORTED", True) else self.needs


# The one place that says what is read; no other plugin of Pillow's ever sees a file, since some start programs.
FORMATS = (
    Format("JPEG", "JPEG", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo")),
    Format("PNG", "PNG", (".png", ".apng")),
    Format("WebP", "WEBP", (".webp",)),
    Format("TIFF", "TIFF", (".tif", ".tiff")),
    Format("BMP", "BMP", (".bmp",)),
    Format("GIF", "GIF", (".gif",)),
    Format("JPEG 2000", "JPEG2000", (".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc")),
    Format("AVIF", "AVIF", (".avif",), "PIL.AvifImagePlugin", "a Pillow that was built with libavif"),
    Format("HEIC", "HEIF", (".heic", ".heif", ".hif"), "pillow_heif", 'pillow-heif: pip install "gem_fast[heic]"'),
    Format("JPEG XL", "JXL", (".jxl",), "pillow_jxl", 'pillow-jxl-plugin: pip install "gem_fast[jxl]"'),
)
EXTENSIONS = frozenset(ending for each in FORMATS for ending in each.endings)

_STARTS = {
    "JPEG-LS": (b"\xff\xd8\xff\xf7",),
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "Canon raw": (b"II*\0\x10\0\0\0CR",),
    "Panasonic raw": (b"IIU\0",),
    "Olympus raw": (b"IIRO", b"IIRS", b"MMOR"),
    "Fujifilm raw": (b"FUJIFILMCCD-RAW",),
    "TIFF": tuple(order + version for order in (b"II", b"MM") for version in (b"*\0", b"\0*", b"+\0", b"\0+")),
    "GIF": (b"GIF87a", b"GIF89a"),
    "JPEG 2000": (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"),
    "JPEG XL": (b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"),
    "DDS": (b"DDS ",),
    "BLP": (b"BLP1", b"BLP2"),
    "EPS": (b"%!PS", b"\xc5\xd0\xd3\xc6"),
    "PDF": (b"%PDF-",),
    "PSD": (b"8BPS",),
    "ICO": tuple(b"\0\0\1\0%c" % count for count in range(1, 256)),
    "CUR": tuple(b"\0\0\2\0%c" % count for count in range(1, 256)),  # none is a TGA, which has no name of its own
    "ICNS": (b"icns",),
    "PNM": tuple(b"P%d%c" % (kind, space) for kind in range(1, 8) for space in b" \t\r\n"),
    "PFM": (b"PF\n", b"Pf\n"),
    "PCX": tuple(b"\n%c\1" % version for version in (0, 2, 3, 4, 5)),
    "SGI": (b"\x01\xda",),
    "QOI": (b"qoif",),
    "FITS": (b"SIMPLE  =",),
    "OpenEXR": (b"v/1\x01",),
    "Radiance HDR": (b"#?RADIANCE", b"#?RGBE"),
    "JPEG XR": (b"II\xbc\x01",),
    "WMF": (b"\xd7\xcd\xc6\x9a",),
    "XPM": (b"/* XPM */",),
    "SVG": (b"<svg",),
    "MNG": (b"\x8aMNG\r\n\x1a\n",),
    "FLIF": (b"FLIF",),
    "DjVu": (b"AT&TFORM",),
    "XCF": (b"gimp xcf",),
}
_BRANDS = {  # of the first box of the ISO base media file format
    "AVIF": {b"avif", b"avis"},
    "HEIC": {b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"},
    "Canon raw": {b"crx "},
    "MP4 or QuickTime": {b"isom", b"iso2", b"mp41", b"mp42", b"avc1", b"qt  "},
}
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}  # of any content
_BMP_HEADERS = {12, 16, 40, 52, 56, 64, 108, 124}  # their lengths, which two letters alone do not tell from text


def _boxed(head: bytes) -> str | None:
    if head[4:8] != b"ftyp":
        return None
    end = min(len(head), int.from_bytes(head[:4], "big"))
    brands = {head[8:12], *(head[start : start + 4] for start in range(16, end, 4))}
    return next((name for name, known in _BRANDS.items() if brands & known), None)


def _started(head: bytes) -> str | None:
    return next((name for name, starts in _STARTS.items() if head.startswith(starts)), None)


def _bmp(head: bytes) -> str | None:
    return "BMP" if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS else None


def _webp(head: bytes) -> str | None:
    return "WebP" if head[:4] == b"RIFF" and head[8:12] == b"WEBP" else None


_KINDS = {
    stat.S_IFDIR: "a folder, not an image; segment_files and the command line take folders",
    stat.S_IFIFO: "a FIFO (named pipe), not an image file",
    stat.S_IFSOCK: "a socket, not an image file",
    stat.S_IFCHR: "a device, not an image file",
    stat.S_IFBLK: "a device, not an image file",
}
_TELLERS: tuple[Callable[[bytes], str | None], ...] = (_started, _webp, _bmp, _boxed)


def sniff(path: str | os.PathLike) -> str | None:
    """The name of a file's image format by its first bytes, whether or not it can be read here.

    None: no image that is known; a file that can't be read; or no regular file, which is not opened (opening a FIFO
    would wait for its writer).
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None
        with open(path, "rb") as file:
            return _told(file.read(_HEAD))
    except OSError:
        return None


def _told(head: bytes) -> str | None:
    return next((name for teller in _TELLERS if (name := teller(head))), None)


def why_compressed(head: bytes) -> str | None:
    """Why a file with these first bytes can't be read, if it is compressed as a whole."""
    by = next((by for start, by in _COMPRESSED.items() if head.startswith(start)), None)
    return f"compressed by {by}, which is not read: unpack it first" if by else None


def check_regular(path: Path) -> None:
    """Refuse, before it is opened, what is no file with something in it; without its name.

    Raises:
        ImageError: it is a folder, FIFO, socket or device, or empty. OSError: there is no such file.
    """
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(_KINDS.get(stat.S_IFMT(status.st_mode), "no regular file"))
    if status.st_size == 0:
        raise ImageError("the file is empty")


def format_of(file: BinaryIO) -> Format:
    """The format to read a file with.

    Raises:
        ImageError: it is no image, or of a format that is not read here; without the file's name.
    """
    head = file.read(_HEAD)
    name = _told(head)
    file.seek(0)
    known = {each.name: each for each in FORMATS}
    if name is None and (packed := why_compressed(head)):
        raise ImageError(packed)
    if name is None:
        raise ImageError(f"not an image in a format that can be read: {', '.join(known)}")
    if name not in known:
        raise ImageError(f"in the format {name}, which is not read; read are {', '.join(known)}")
    if needed := known[name].why_not():
        raise ImageError(f"in the format {name}, which needs {needed}")
    return known[name]
