"""Segment an image on Triton Inference Server: `python triton_client.py HOST:PORT FOLDER IMAGE WORD...`.

FOLDER is an export of --format triton-server --with-preprocess; pip install 'tritonclient[http]' tokenizers pillow.
"""

import json
import sys

import numpy as np
import tritonclient.http as triton
from PIL import Image
from tokenizers import Tokenizer
from tritonclient.utils import np_to_triton_dtype

server, folder, path, *words = sys.argv[1:]
with open(f"{folder}/manifest.json", encoding="utf-8") as file:
    manifest = json.load(file)
texts = [manifest["text"]["templates"]["photo"][0].replace("{}", word) for word in words]
tokens = [each.ids for each in Tokenizer.from_file(f"{folder}/tokenizer.json").encode_batch(texts)]
image = np.asarray(Image.open(path).convert("RGB"))
feed = {
    "image": image[None],
    "token_ids": np.array(tokens, np.int64),
    "output_size": np.array(image.shape[:2], np.int64),
    "synonyms": np.array([[-1]], np.int64),  # each text is a class
    "logit_scale": np.array([manifest["defaults"]["logit_scale"]], np.float32),
    "threshold": np.array([manifest["defaults"]["threshold"]], np.float32),
}
inputs = []
for name, value in feed.items():
    inputs.append(triton.InferInput(name, list(value.shape), np_to_triton_dtype(value.dtype)))
    inputs[-1].set_data_from_numpy(value)
# Labels alone: heat maps would hold classes × height × width.
wanted = [triton.InferRequestedOutput("labels")]
labels = triton.InferenceServerClient(server).infer("gem", inputs, outputs=wanted).as_numpy("labels")[0]
for label, name in enumerate(["background", *words]):
    print(json.dumps(name), int((labels == label).sum()))
