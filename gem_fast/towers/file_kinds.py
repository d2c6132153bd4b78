"""What a file is by its first bytes, for the error that says why it holds no weights that can be read."""

from pathlib import Path

_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "is a git-lfs pointer, not the weights; fetch them with `git lfs pull`"),
    (b"GGUF", "is a GGUF file of llama.cpp; CLIP's weights are needed as torch or safetensors files"),
    (b"\x89HDF", "is an HDF5 file of Keras or TensorFlow; torch or safetensors weights are needed"),
    (b"\x93NUMPY", "is a numpy array; torch or safetensors weights are needed"),
    (b"\x1f\x8b", "is compressed by gzip; unpack it first"),
    (b"BZh", "is compressed by bzip2; unpack it first"),
    (b"\xfd7zXZ", "is compressed by xz; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "is compressed by zstd; unpack it first"),
    (b"7z\xbc\xaf", "is a 7z archive; unpack it first"),
    (b"Rar!", "is a RAR archive; unpack it first"),
    (b"\x89PNG", "is a picture"),
    (b"\xff\xd8\xff", "is a picture"),
    (b"%PDF", "is a PDF document"),
    (b"\x7fELF", "is a program"),
)
_ENDINGS = {
    ".onnx": "is an ONNX graph",
    ".pb": "is a TensorFlow graph",
    ".h5": "is a Keras file",
    ".msgpack": "is a file of Flax",
    ".npz": "is an archive of numpy",
    ".npy": "is a numpy array",
    ".gguf": "is a GGUF file of llama.cpp",
    ".tflite": "is a TensorFlow Lite graph",
    ".engine": "is an engine of TensorRT",
    ".pt2": "is a compiled program of torch.export",
    ".index": "is the index of a TensorFlow checkpoint",
}


def foreign_kind(path: Path) -> str | None:
    """What a file that is neither torch's nor safetensors is, in words that follow its name; None if unknown.

    TensorFlow Lite is told by its fifth byte, Flax by a msgpack map whose first key is a text.
    """
    with path.open("rb") as file:
        start = file.read(1024)
    for magic, words in _STARTS:
        if start.startswith(magic):
            return words
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head", b"<!--")):
        return "is a web page, not weights: what was downloaded is perhaps an error or a login page"
    if start[257:262] == b"ustar":
        return "is a tar archive; unpack it first (those of torch before 0.4 must be saved again by a newer torch)"
    if start[4:8] == b"TFL3":
        return "is a TensorFlow Lite graph; torch or safetensors weights are needed"
    if b"\x81" <= start[:1] <= b"\x8f" and (b"\xa0" <= start[1:2] <= b"\xbf" or start[1:2] == b"\xd9"):
        return "is a msgpack file of Flax; torch or safetensors weights are needed"
    if b"onnx" in start[:64].lower() or (start.startswith(b"\x08") and b"pytorch" in start[:64]):
        return "is an ONNX graph; torch or safetensors weights are needed"
    if path.suffix.lower() in _ENDINGS:
        return f"must be a .safetensors or .pt file, and {_ENDINGS[path.suffix.lower()]}"
    if all(byte >= 32 or byte in b"\t\r\n" for byte in start) and len(start.split()) > 1:
        return f"is a text, not weights; it begins with {start[:40].decode(errors='replace')!r}"
    return None
