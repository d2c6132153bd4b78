"""Reading files that may be anything: what they are is told, nothing is run, and nothing costs more than its size."""

import copy
import io
import json
import os
import pickle
import random
import struct
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from gem_fast import ModelError
from gem_fast.towers.checkpoint import read_checkpoint
from gem_fast.towers.pickled import MOST_STEPS
from gem_fast.towers.weights_file import read_weights
from tests.towers.clip_files import SMALLEST, make_clip, write_open_clip


@pytest.fixture(scope="module")
def smallest():
    return make_clip(SMALLEST)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, smallest):
    return write_open_clip(tmp_path_factory.mktemp("models") / "smallest", smallest, SMALLEST)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 605143316\n"
NOT_WEIGHTS = {
    "lfs": (LFS, "is a git-lfs pointer.*git lfs pull"),
    "html": (b"<!DOCTYPE html><html><body>404</body></html>", "is a web page"),
    "indented-html": (b"\n  <html lang='en'>", "is a web page"),
    "s3-error": (b'<?xml version="1.0"?><Error>AccessDenied</Error>', "is a web page"),
    "json": (b'{"error": "Repository not found"}', "is a text, not weights; it begins with .*error"),
    "text": (b"Access to this model is restricted\n", "is a text, not weights"),
    "empty": (b"", "is empty, and so damaged"),
    "one-byte": (b"P", "is damaged"),
    "zeros": (bytes(1000), "is damaged"),
    "gguf": (b"GGUF\x03\0\0\0" + bytes(100), "is a GGUF file"),
    "keras": (b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file of Keras"),
    "numpy": (b"\x93NUMPY\x01\0" + bytes(100), "is a numpy array"),
    "gzip": (b"\x1f\x8b\x08" + bytes(100), "is compressed by gzip; unpack it"),
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(100), "is a TensorFlow Lite graph"),
    "flax": (b"\x82\xa6params\x81" + bytes(100), "is a msgpack file of Flax"),
    "onnx": (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0" + bytes(100), "is an ONNX graph"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "is a picture"),
    "tar": (b"weights.pt" + bytes(247) + b"ustar\x0000" + bytes(300), "is a tar archive; unpack it"),
}


@pytest.mark.parametrize("ending", [".pt", ".safetensors", ".bin"])
@pytest.mark.parametrize("kind", NOT_WEIGHTS)
def test_what_is_no_weights_is_named(tmp_path, kind, ending):
    content, reason = NOT_WEIGHTS[kind]
    path = tmp_path / f"w{ending}"
    path.write_bytes(content)
    if kind in ("one-byte", "zeros") and ending == ".safetensors":
        reason = "is not a readable safetensors file"
    with pytest.raises(ModelError, match=rf"^weights: .*w\{ending} {reason}"):
        read_weights(path)


@pytest.mark.parametrize("ending", ["onnx", "pb", "h5", "msgpack", "npz", "gguf", "tflite"])
def test_endings_of_others_are_named(tmp_path, ending):
    (tmp_path / f"w.{ending}").write_bytes(b"\x01\x02\x03\x04" * 10)
    with pytest.raises(ModelError, match=rf"w\.{ending} must be a \.safetensors or \.pt file, and is a"):
        read_weights(tmp_path / f"w.{ending}")


def test_zip_archives_of_other_things(tmp_path):
    np.savez(tmp_path / "w.npz", vision=np.zeros(2))
    (tmp_path / "w.npz").rename(tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"w\.pt is a zip archive of other things \('vision\.npy'\)"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("ending", [".pt", ".safetensors", "legacy.pt"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_unfinished_downloads(tmp_path, ending, kept):
    path = tmp_path / f"w{ending}"
    state = {"a": torch.randn(300, 300), "b": torch.randn(300)}
    if ending == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=ending == ".pt")
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ModelError, match=r"cut short|unfinished download"):
        read_weights(path)


class TestNothingIsRun:
    NAMES = (
        ("os", "system"),
        ("builtins", "eval"),
        ("torch", "load"),
        ("torch.hub", "load"),
        ("torch.serialization", "x"),
    )

    @pytest.mark.parametrize("called", NAMES, ids=".".join)
    @pytest.mark.parametrize("protocol", [2, 4])
    def test_calls_are_refused_by_name(self, tmp_path, called, protocol):
        module, name = called
        if protocol == 2:
            target = f"c{module}\n{name}\n".encode()
        else:
            target = b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in called) + b"\x93"
        write_archive(tmp_path / "w.pt", b"\x80" + bytes([protocol]) + target + b"X\x02\0\0\0ls\x85R.")
        with pytest.raises(ModelError, match=rf"holds more than tensors \({module}\.{name}\).*never unpickled"):
            read_weights(tmp_path / "w.pt")

    def test_nor_from_a_torchscript_archive(self, tmp_path):
        """Beside its modules an archive may name nothing else."""
        write_archive(
            tmp_path / "w.pt", b"\x80\x02c__torch__.A\nB\n)\x81}X\x01\0\0\0acos\nsystem\nX\x02\0\0\0ls\x85Rsb."
        )
        with pytest.raises(ModelError, match=r"holds more than tensors \(os\.system\)"):
            read_weights(tmp_path / "w.pt")

    def test_a_whole_pickled_model_is_named(self, tmp_path, smallest):
        torch.save(smallest, tmp_path / "w.pt")
        with pytest.raises(ModelError, match=r"more than tensors \(open_clip\..*CLIP\).*save its state dict"):
            read_weights(tmp_path / "w.pt")

    def test_no_message_tells_to_switch_safety_off(self, tmp_path):
        for number, content in enumerate((torch.nn.GELU(), {"a": object}, print, [b"x"], {1: 2}, None)):
            torch.save(content, tmp_path / f"{number}.pt")
            with pytest.raises(ModelError) as error:
                read_weights(tmp_path / f"{number}.pt")
            assert "weights_only" not in str(error.value)
            assert "allowlist" not in str(error.value)


class TestBombs:
    @pytest.mark.parametrize("packed", ["w/data.pkl", "w/data/0"])
    def test_compressed_archives_are_refused_before_they_are_unpacked(self, tmp_path, monkeypatch, packed):
        """Many megabytes of zeros are some kilobytes in the file."""
        with zipfile.ZipFile(tmp_path / "w.pt", "w", compresslevel=1) as archive:
            for name, content in (("w/data.pkl", tensor_pickle(1 << 23)), ("w/data/0", bytes(1 << 25))):
                archive.writestr(name, content, zipfile.ZIP_DEFLATED if name == packed else zipfile.ZIP_STORED)
        monkeypatch.setattr(zipfile.ZipFile, "open", None)  # what unpacks
        with pytest.raises(ModelError, match=r"w\.pt is a compressed archive, which torch never writes"):
            read_weights(tmp_path / "w.pt")

    def test_a_tensor_larger_than_the_file(self, tmp_path):
        write_archive(tmp_path / "w.pt", tensor_pickle(1 << 40), bytes(64))
        with pytest.raises(ModelError, match=r"data/0 is missing or too short"):
            read_weights(tmp_path / "w.pt")

    @pytest.mark.parametrize(("shape", "stride", "fits"), [(4, 1, True), (2, 3, True), (5, 1, False), (2, 4, False)])
    def test_a_tensor_ends_with_its_storage(self, tmp_path, shape, stride, fits):
        write_archive(tmp_path / "w.pt", tensor_pickle(4, shape, stride), np.arange(5, dtype=np.float32).tobytes())
        if fits:
            assert read_weights(tmp_path / "w.pt").state["w"].tolist() == [*range(0, shape * stride, stride)]
            return
        with pytest.raises(ModelError, match="the tensor w reaches beyond its storage"):
            read_weights(tmp_path / "w.pt")

    def test_encrypted_archives_are_refused(self, tmp_path):
        write_archive(tmp_path / "w.pt", tensor_pickle(4), bytes(16))
        content = bytearray((tmp_path / "w.pt").read_bytes())
        content[content.rfind(b"PK\x01\x02") + 8] |= 1  # of the storage
        (tmp_path / "w.pt").write_bytes(content)
        with pytest.raises(ModelError, match="is a compressed archive"):
            read_weights(tmp_path / "w.pt")

    def test_a_list_of_members_larger_than_the_file(self, tmp_path):
        write_archive(tmp_path / "w.pt", tensor_pickle(4), bytes(16))
        content = bytearray((tmp_path / "w.pt").read_bytes())
        struct.pack_into("<I", content, len(content) - 22 + 12, len(content) + 1)
        (tmp_path / "w.pt").write_bytes(content)
        with pytest.raises(ModelError, match="list of members has an impossible size"):
            read_weights(tmp_path / "w.pt")

    def test_members_over_one_another(self, tmp_path):
        write_archive(tmp_path / "w.pt", tensor_pickle(1000), bytes(4000))
        with zipfile.ZipFile(tmp_path / "w.pt", "a") as archive:
            for number in range(1, 4):
                archive.filelist.append(copy.copy(archive.getinfo("w/data/0")))
                archive.filelist[-1].filename = f"w/data/{number}"
            archive.comment = b"written anew"
        with pytest.raises(ModelError, match="members are larger than the file"):
            read_weights(tmp_path / "w.pt")

    @pytest.mark.parametrize(("views", "fits"), [((None,), True), ((("0", 0, 4),), False)], ids=["none", "one"])
    def test_views_of_storages_are_unknown(self, tmp_path, views, fits):
        write_archive(tmp_path / "w.pt", tensor_pickle(4, views=views), bytes(16))
        if fits:
            assert read_weights(tmp_path / "w.pt").state["w"].tolist() == [0] * 4
            return
        with pytest.raises(ModelError, match="a storage of an unknown kind"):
            read_weights(tmp_path / "w.pt")

    def test_a_tensor_that_repeats_its_storage(self, tmp_path):
        write_archive(tmp_path / "w.pt", tensor_pickle(4, shape=1 << 40, stride=0), bytes(16))
        with pytest.raises(ModelError, match=r"has an expanded tensor.*\.contiguous\(\)"):
            read_weights(tmp_path / "w.pt")

    def test_a_legacy_file_that_claims_more(self, tmp_path):
        torch.save({"a": torch.zeros(4)}, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
        content = (tmp_path / "w.pt").read_bytes()
        (tmp_path / "w.pt").write_bytes(content.replace(struct.pack("<q", 4), struct.pack("<q", 1 << 40)))
        with pytest.raises(ModelError, match="cut short or of another size"):
            read_weights(tmp_path / "w.pt")

    def test_lists_of_lists_of_lists(self, tmp_path):
        """Thirty lists, each ten times the one before: small, if nobody counts them out."""
        laughs = b"]" + b"".join(b"q%c](" % n + b"h%c" % n * 10 + b"e" for n in range(30))
        write_archive(tmp_path / "w.pt", b"\x80\x02" + laughs + b".")
        with pytest.raises(ModelError, match="holds a list, not a state dict"):
            read_weights(tmp_path / "w.pt")

    def test_modules_that_hold_each_other(self, tmp_path):
        module = b"c__torch__.A\nB\n)\x81"
        inner = module + b"".join(
            b"q%c" % n + module + b"}(X\x01\0\0\0ah%cX\x01\0\0\0bh%cub" % (n, n) for n in range(60)
        )
        write_archive(tmp_path / "w.pt", b"\x80\x02" + inner + b".")
        with pytest.raises(ModelError, match="hold each other without end"):
            read_weights(tmp_path / "w.pt")
        write_archive(tmp_path / "w.pt", b"\x80\x02" + module + b"q\x00}X\x01\0\0\0ah\x00sb.")
        with pytest.raises(ModelError, match="hold each other without end"):
            read_weights(tmp_path / "w.pt")

    @pytest.mark.parametrize("opening", [b"(", b")\x85"], ids=["marks", "tuples"])
    def test_nesting_without_end(self, tmp_path, opening):
        nested = b")" + b"\x85" * 200_000 if opening != b"(" else b"(" * 200_000
        write_archive(tmp_path / "w.pt", b"\x80\x02}" + nested + b"K\x01s.")
        with pytest.raises(ModelError, match=r"w\.pt (holds|is damaged)"):
            read_weights(tmp_path / "w.pt")

    def test_more_steps_than_any_checkpoint_takes(self, tmp_path):
        write_archive(tmp_path / "w.pt", b"\x80\x02" + b"N0" * (MOST_STEPS // 2 + 1) + b"}.")
        with pytest.raises(ModelError, match="more than 3,000,000 steps"):
            read_weights(tmp_path / "w.pt")

    def test_names_of_classes_joined_of_one_long_text(self, tmp_path):
        text = b"X" + struct.pack("<I", 1 << 20) + b"x" * (1 << 20)
        for described in (text + b"q\x000(" + b"h\x00h\x00\x93" * 50 + b"l.", b"cx\n" + b"x" * (1 << 20) + b"\n."):
            write_archive(tmp_path / "w.pt", b"\x80\x02" + described)
            with pytest.raises(ModelError, match="the name of a class without end"):
                read_weights(tmp_path / "w.pt")

    def test_names_of_tensors_put_together_of_one_long_text(self, tmp_path):
        """A module with a long name, and in it another one many times."""
        module, count = b"c__torch__\nM\n)\x81", 50
        inner = module + b"}(" + b"".join(b"K%cN" % n for n in range(count)) + b"ub"
        long = b"X" + struct.pack("<I", 1 << 20) + b"x" * (1 << 20)
        write_archive(tmp_path / "w.pt", b"\x80\x02" + module + b"}" + long + inner + b"sb.")
        with pytest.raises(ModelError, match="hold each other without end"):
            read_weights(tmp_path / "w.pt")

    def test_many_tensors_of_one_long_description(self, tmp_path):
        settings = b"(" + b"N" * 1000 + b"t"
        for called in (b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nSize\n"):
            write_archive(tmp_path / "w.pt", b"\x80\x02}K\x01" + called + settings + b"Rs.")
            with pytest.raises(ModelError, match="a tensor of too many settings"):
                read_weights(tmp_path / "w.pt")

    def test_keys_of_storages_that_are_lists_of_lists(self, tmp_path):
        """Thirty lists, each twice the one before: a billion letters, if it is printed."""
        torch.save({}, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
        keys = b"\x80\x02]q\x00" + b"](h\x00h\x00eq\x00" * 30 + b"q\x01]h\x01a."
        content = (tmp_path / "w.pt").read_bytes()
        assert content.endswith(pickle.dumps([], 2))
        (tmp_path / "w.pt").write_bytes(content.removesuffix(pickle.dumps([], 2)) + keys)
        with pytest.raises(ModelError, match="the list of its storages does not fit"):
            read_weights(tmp_path / "w.pt")

    def test_tensors_over_one_another(self, tmp_path):
        whole = torch.zeros(1000)
        torch.save({str(n): whole for n in range(100)}, tmp_path / "w.pt")
        with pytest.raises(ModelError, match="is damaged: its tensors lie over one another"):
            read_weights(tmp_path / "w.pt")

    def test_a_storage_out_of_line_is_copied_once(self, tmp_path):
        whole = torch.arange(8.0)
        parts = {"a": whole[:4], "b": whole[4:], "c": whole}
        for name in ("w", "longer", "longest"):  # in one of which it begins at no multiple of 4
            torch.save(parts | {"n" * len(name): 1}, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
            state = read_weights(tmp_path / "w.pt").state
            assert torch.equal(torch.cat([state["a"], state["b"]]), whole)
            assert len({tensor.untyped_storage().data_ptr() for tensor in state.values()}) == 1

    def test_a_name_of_prefixes_alone(self, tmp_path):
        save_file({"model." * 200_000 + "w": torch.zeros(1)}, tmp_path / "w.safetensors")
        (name,) = read_weights(tmp_path / "w.safetensors").state
        assert len(name) > 1_000_000

    @pytest.mark.parametrize("shape", [[0, 2**62, 4], [2**63, 0], [0] * 9], ids=str)
    def test_nothing_in_an_impossible_shape(self, tmp_path, shape):
        entry = {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}
        header = json.dumps({"a.weight": entry}).encode()
        (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
        with pytest.raises(ModelError, match=r"is damaged: the tensor a\.weight is of an impossible shape"):
            read_weights(tmp_path / "w.safetensors")

    @pytest.mark.parametrize("shape", [(0, 2**47, 2**47), (2**47, 2**47, 0), (2**24, 2**24, 0)], ids=str)
    def test_nothing_in_an_impossible_shape_of_torch(self, tmp_path, shape):
        write_archive(tmp_path / "w.pt", tensor_pickle(4, shape, (1, 1, 1)), bytes(16))
        with pytest.raises(ModelError, match="is damaged: the tensor w is of an impossible shape"):
            read_weights(tmp_path / "w.pt")

    def test_a_header_longer_than_the_file(self, tmp_path):
        (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", 90_000_000) + b'{"a":' + bytes(100))
        with pytest.raises(ModelError, match="is not a readable safetensors file"):
            read_weights(tmp_path / "w.safetensors")


def test_mutated_files_are_read_or_refused(tmp_path, folder, smallest):
    """Whatever is damaged, in a structure or in its numbers, nothing but a ModelError comes of it."""
    state = {name: value.contiguous() for name, value in smallest.state_dict().items()}
    save_file(state, tmp_path / "a.safetensors")
    torch.save({"state_dict": state, "epoch": 1}, tmp_path / "b.pt")
    torch.save(state, tmp_path / "c.pt", _use_new_zipfile_serialization=False)
    torch.save(state, tmp_path / "d.pt", pickle_protocol=5)
    chance = random.Random(0)
    outcomes = set()
    for name in ("a.safetensors", "b.pt", "c.pt", "d.pt"):
        whole = (tmp_path / name).read_bytes()
        for _ in range(60):
            path = tmp_path / f"mutated{name[1:]}"
            path.write_bytes(mutated(whole, chance))
            outcomes.add(outcome(lambda path=path: read_checkpoint(f"local-dir:{folder}", weights=path)))
    assert outcomes == {"read", "refused"}


def test_mutated_descriptions_are_read_or_refused(tmp_path, smallest):
    torch.save({"state_dict": smallest.state_dict(), "epoch": 1}, tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "whole.pt") as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    described = members["whole/data.pkl"]
    chance = random.Random(1)
    outcomes = set()
    for _ in range(300):
        members["whole/data.pkl"] = mutated(described, chance)
        with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        outcomes.add(outcome(lambda: read_weights(tmp_path / "w.pt")))
    assert outcomes == {"read", "refused"}


def outcome(read):
    try:
        read()
    except ModelError:
        return "refused"
    return "read"


PIECES = (
    b"\xff\xff\xff\xff",
    bytes(8),
    b"cos\nsystem\n",
    b"R",
    b"b",
    b"\x81",
    b"(",
    b"u",
    b"h\x01",
    b"0",
    b"\x85",
    b".",
)


def mutated(content, chance):
    """The bytes with one to three of: a changed byte, a cut, a removed, copied or foreign piece."""
    content = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        place = chance.randrange(min(len(content), chance.choice([200, 4000, len(content)])))
        match chance.randrange(5):
            case 0:
                content[place] = chance.randrange(256)
            case 1:
                del content[place + 1 :]
            case 2:
                del content[place : place + chance.randint(1, 16)]
            case 3:
                content[place : place + 4] = chance.choice(PIECES)
            case _:
                other = chance.randrange(len(content))
                content[place:place] = content[other : other + 16]
        content = content or bytearray(b".")
    return bytes(content)


def tensor_pickle(size, shape=None, stride=1, views=()):
    """A state dict with one float tensor of a storage of `size` elements, as torch describes it."""
    shape = size if shape is None else shape
    sides, strides = shape if isinstance(shape, tuple) else (shape,), stride if isinstance(stride, tuple) else (stride,)
    stream = io.BytesIO()

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return ("storage", torch.FloatStorage, "0", "cpu", size, *views) if value is STORAGE else None

    class Tensor:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (STORAGE, 0, sides, strides, False, {})

    Pickler(stream, protocol=2).dump({"w": Tensor()})
    return stream.getvalue()


STORAGE = object()


def write_archive(path, described, *storages):
    """A zip as torch writes it, with any pickle inside."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("w/data.pkl", described)
        for key, storage in enumerate(storages):
            archive.writestr(f"w/data/{key}", storage)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.uint16, torch.float8_e4m3fn], ids=str)
def test_types_of_a_storage_and_of_a_tensor_alone(tmp_path, dtype):
    """Newer types have no storage of their own: the tensor names them."""
    weight = torch.tensor([[1, 2], [3, 4]]).to(dtype)
    torch.save({"w": weight}, tmp_path / "w.pt")
    found = read_weights(tmp_path / "w.pt").state["w"]
    assert (found.dtype, found.tolist()) == (dtype, [[1, 2], [3, 4]])


def test_a_fifo_is_not_opened(tmp_path, folder):
    os.mkfifo(tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"w\.pt is no regular file"):
        read_checkpoint(f"local-dir:{folder}", weights=tmp_path / "w.pt")


def test_config_json_is_not_weights(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(ModelError, match=r"config\.json is a text, not weights"):
        read_weights(tmp_path / "config.json")
