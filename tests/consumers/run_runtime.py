"""This project's runtime on another build of ONNX Runtime: `python run_runtime.py FOLDER IMAGE OUT OPTIONS...`.

For each OPTIONS, JSON of keywords, OUT.I.npz has the scores and the provider of the image encoder; an error is printed.
"""

import json
import sys

import numpy as np

from gem_fast.errors import ExportError
from gem_fast.runtime import GemRuntime

folder, image, out, *chosen = sys.argv[1:]
for i, options in enumerate(map(json.loads, chosen)):
    try:
        model = GemRuntime(folder, threads=2, **options)
        scores = model.segment(image, ["car", "tree"]).scores
    except ExportError as error:
        print(error)
    else:
        provider = model.image_encoder(model.sizes[0]).session.get_providers()[0]
        np.savez(f"{out}.{i}.npz", scores=scores, provider=provider)
