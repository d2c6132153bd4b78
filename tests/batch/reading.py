"""Archives to read, and what is read of inputs."""

import tarfile

from gem_fast.batch.sources import Listing
from gem_fast.errors import ImageError

SETTINGS = {"size": 64, "batch_size": 2, "overlays": False}


def tar(path, *members, format=tarfile.PAX_FORMAT):
    """An archive of `(name or TarInfo, content)`."""
    with tarfile.open(path, "w", format=format) as archive:
        for name, content in members:
            info = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = info.size or len(content)
            archive.fileobj.write(info.tobuf(format))
            archive.fileobj.write(content + bytes(-len(content) % 512))
    return path


def special(name, kind, size=0):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, "/etc/passwd", size
    return info


def read(inputs):
    """The bytes of each image, or the reason why there are none, by what it is told by."""
    found = {}
    for source in Listing(inputs):
        try:
            found[source.image] = source.content.read()
        except ImageError as error:
            found[source.image] = str(error)
    return found


def files(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.labels.png")}
