"""The figures of the paper, to stand beside ours: percent, by data set, backbone and method. Needs no torch."""

# "Grounding Everything" (CVPR 2024), Tables 2, 3 and 5: mIoU, and p-mIoU for OpenImages V7.
_CLIP_B16 = {
    "clip": {"voc21": 10.4, "context59": 7.7, "ade20k": 1.7, "openimages-points": 27.6},
    "maskclip": {"voc21": 28.6, "context59": 23.8, "ade20k": 10.2, "openimages-points": 42.0},
    "clip-surgery": {"voc21": 41.2, "context59": 30.5, "ade20k": 12.9, "openimages-points": 47.8},
}
_GEM = {
    ("ViT-B-16", "CLIP"): {"voc21": 46.2, "context59": 32.6, "ade20k": 15.7, "openimages-points": 50.9},
    ("ViT-B-16", "OpenCLIP"): {"voc21": 43.1, "context59": 31.7, "openimages-points": 49.9},
    ("ViT-B-16", "MetaCLIP"): {"voc21": 46.8, "context59": 34.5, "ade20k": 17.1, "openimages-points": 51.9},
    ("ViT-B-32", "CLIP"): {"voc21": 40.5, "context59": 27.0, "openimages-points": 46.6},
    ("ViT-B-32", "OpenCLIP"): {"voc21": 39.3, "context59": 23.9, "openimages-points": 45.5},
    ("ViT-B-32", "MetaCLIP"): {"voc21": 38.2, "context59": 28.2, "openimages-points": 46.7},
    ("ViT-L-14", "CLIP"): {"voc21": 44.6, "context59": 28.6, "openimages-points": 46.3},
    ("ViT-L-14", "OpenCLIP"): {"voc21": 40.0, "context59": 27.5, "openimages-points": 42.4},
    ("ViT-L-14", "MetaCLIP"): {"voc21": 45.7, "context59": 26.9, "openimages-points": 40.9},
}
_FAMILIES = {"openai": "CLIP", "laion": "OpenCLIP", "metaclip": "MetaCLIP"}


def paper_figure(data: str | None, model: str, pretrained: str | None, method: str) -> float | None:
    """What the paper has for a kind of set, a model of open_clip and a tag of its weights, in percent; or None."""
    backbone = model.removesuffix("-quickgelu")
    family = next((name for start, name in _FAMILIES.items() if (pretrained or "").startswith(start)), None)
    if method == "gem":
        return _GEM.get((backbone, family or ""), {}).get(data or "")
    return _CLIP_B16.get(method, {}).get(data or "") if (backbone, family) == ("ViT-B-16", "CLIP") else None
