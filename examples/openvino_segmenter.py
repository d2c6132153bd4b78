"""Segment an image by a fixed vocabulary: `python openvino_segmenter.py FOLDER IMAGE`."""

import json
import sys

import numpy as np
import openvino
from PIL import Image

folder, path = sys.argv[1:]
with open(f"{folder}/manifest.json", encoding="utf-8") as file:
    vocabulary = json.load(file)["vocabulary"]
# Without the hint OpenVINO computes in bfloat16 on CPUs that have it.
compiled = openvino.Core().compile_model(f"{folder}/segmenter.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
image = np.asarray(Image.open(path).convert("RGB"))
labels = compiled({"image": image[None]})["labels"]
for label, name in enumerate(["background", *vocabulary["classes"]]):
    print(name, int((labels == label).sum()))
