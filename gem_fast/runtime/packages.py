"""Which ONNX Runtime is installed: its builds are packages of several names over the same files."""

from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

_BUILDS = ("", "-gpu", "-openvino", "-directml", "-migraphx", "-rocm", "-qnn", "-azure", "-webgpu", "-training")
_LIBRARY = "onnxruntime/capi/onnxruntime_pybind11_state."  # the file that a build is


def two_runtimes() -> str | None:
    """What to say where several builds are installed; None where there is one."""
    builds = installed_builds()
    if len(builds) < 2:
        return None
    names = [build.name for build in builds]
    told = " and ".join(f"{build.name} {build.version}" for build in builds)
    running = [build.name for build in builds if _is_whole(build)]
    which = f"what runs is {running[0]}" if len(running) == 1 else "what runs is a mixture"
    return (
        f"{told} are installed over each other, and {which}: run pip uninstall -y {' '.join(names)}, and then install "
        "the one that you want, by gem_fast's extra runtime, runtime-gpu or runtime-openvino"
    )


def installed_builds() -> list[Distribution]:
    """The packages that have ONNX Runtime's files."""
    found = []
    for build in _BUILDS:
        try:
            found.append(distribution(f"onnxruntime{build}"))
        except PackageNotFoundError:
            continue
    return found


def _is_whole(build: Distribution) -> bool:
    """Whether the library on disk is that of the package, by its size."""
    libraries = [file for file in build.files or () if file.as_posix().startswith(_LIBRARY)]
    places = [(Path(str(build.locate_file(file))), file.size) for file in libraries]
    return bool(places) and all(place.is_file() and place.stat().st_size == size for place, size in places)
