"""Where a model's weights and its settings come from: a tag, a local file or folder, or the hub."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import ModelError
from .blip_config import BLIP
from .folders import describes_a_model, find_weights, read_folder
from .open_clip_files import pretrained_table
from .preprocessing import CLIP_IMAGES, HALVED_IMAGES, PE_IMAGES, Preprocessing, of_open_clip
from .quick_gelu import require_activation


@dataclass(frozen=True)
class Source:
    """What is needed to read a model.

    Attributes:
        label: the pretrained tag, the file or folder, or "random".
        model_cfg: open_clip's config of the model.
        weights: a file, or the index of its parts; None for random weights.
        preprocessing: of the images in training.
        knows_activation: the config is that of these very weights.
        name: of a folder's model, without the path; None where the caller's name is the model's.
        folder: with the files of the model, if it is one.
    """

    label: str
    model_cfg: dict[str, Any]
    weights: Path | None
    preprocessing: Preprocessing = CLIP_IMAGES
    knows_activation: bool = True
    name: str | None = None
    folder: Path | None = None


def pretrained_weights(name: str, model_cfg: dict[str, Any], tag: str) -> Source:
    """Of a tag of open_clip, fetched. Where it tells the activation it knows; the plain config of that name may not."""
    settings = pretrained_table()[name][tag]
    try:
        path = _download(settings)
    except Exception as error:  # clients raise many kinds; the first line is what helps
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ModelError(f"the weights {name}/{tag} could not be fetched or read: {reason}") from error
    model_cfg = {**model_cfg, "quick_gelu": settings.get("quick_gelu", model_cfg.get("quick_gelu", False))}
    images = of_open_clip(settings, model_cfg, f"{name}/{tag}")
    # By a plain name, images have the size of the paper's evaluation.
    return Source(tag, model_cfg, path, replace(images, size=None))


def _download(settings: dict[str, Any]) -> Path:
    """The file of a tag: from the hub where it is there, else from its address."""
    from .hub import fetch

    repository, _, file = settings.get("hf_hub", "").rpartition("/")
    if not repository:
        import open_clip

        return Path(open_clip.download_pretrained_from_url(settings["url"]))
    if not file:
        return fetch(repository, ("open_clip_model.safetensors", "open_clip_pytorch_model.bin"))
    return fetch(repository, tuple(dict.fromkeys((str(Path(file).with_suffix(".safetensors")), file))))


def local_weights(name: str, model_cfg: dict[str, Any], path: Path) -> Source:
    """A named model with the weights of a file, or of a folder, which may describe its own model."""
    images = usual_images(model_cfg)
    if not path.is_dir():
        return Source(str(path), model_cfg, path, images, knows_activation=False, folder=path.parent)
    if not describes_a_model(path):
        return Source(str(path), model_cfg, find_weights(path, "weights"), images, knows_activation=False, folder=path)
    described = read_folder(path, f"weights: {path}")
    require_activation(name, model_cfg, described.model_cfg, path)
    if BLIP in model_cfg:
        _require_size(name, model_cfg, described.model_cfg, path)
        model_cfg = described.model_cfg
    return Source(str(path), model_cfg, find_weights(path, "weights"), described.preprocessing, folder=path)


def _require_size(name: str, model_cfg: dict[str, Any], described: dict[str, Any], path: Path) -> None:
    """Refuse a name of BLIP for a folder of another model."""
    wanted, found = (each.get(BLIP, {}).get("vision", {}).get("hidden_size") for each in (model_cfg, described))
    if wanted != found:
        raise ModelError(f"weights: {path} is not of the model {name}: its image tower is {found} wide, not {wanted}")


def usual_images(model_cfg: dict[str, Any]) -> Preprocessing:
    """How images are prepared where neither a tag nor a folder says: SigLIP's and PE's are normalised by halves."""
    trunk = str(model_cfg["vision_cfg"].get("timm_model_name") or "")
    if "vit_pe_" in trunk:
        return PE_IMAGES
    return HALVED_IMAGES if "siglip" in trunk else CLIP_IMAGES


def describes_itself(name: str) -> bool:
    """Whether a name is that of a folder or repository which says what its model is."""
    return name.startswith(("local-dir:", "hf-hub:")) or (name != "" and describes_a_model(Path(name)))


def described_model(name: str, pretrained: str | None, weights: str | Path | None) -> Source:
    """A model whose configuration lies beside its weights; other weights for it may be given."""
    if pretrained not in (None, "random") or (pretrained and weights):
        raise ModelError(f"{name} brings its own weights: leave out pretrained, or let it be random")
    hub = name.startswith("hf-hub:")
    place = Path(name.removeprefix("local-dir:")).expanduser()
    folder = _fetched(name.removeprefix("hf-hub:")) if hub else place
    described = read_folder(folder, name)
    short = name if hub else place.resolve().name
    if pretrained:
        return Source(pretrained, described.model_cfg, None, described.preprocessing, name=short, folder=folder)
    path = find_weights(folder, name) if weights is None else Path(weights)
    path = find_weights(path, "weights") if path.is_dir() else path
    label = name if hub and weights is None else str(path)
    return Source(label, described.model_cfg, path, described.preprocessing, weights is None, short, folder)


def _fetched(repository: str) -> Path:
    from .hub import fetch_folder  # whose client is slow to import

    return fetch_folder(repository)
