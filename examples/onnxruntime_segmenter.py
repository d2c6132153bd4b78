"""Segment an image by a fixed vocabulary: `python onnxruntime_segmenter.py FOLDER IMAGE`."""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image

folder, path = sys.argv[1:]
session = onnxruntime.InferenceSession(f"{folder}/segmenter.onnx")
vocabulary = json.loads(session.get_modelmeta().custom_metadata_map["gem_fast"])["vocabulary"]
image = np.asarray(Image.open(path).convert("RGB"))
labels, confidence = session.run(["labels", "confidence"], {"image": image[None]})
for label, name in enumerate(["background", *vocabulary["classes"]]):
    print(name, int((labels == label).sum()))
