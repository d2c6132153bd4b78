"""Kinds of wrong entries in a manifest: where, what stands there instead, and what is said of it."""

import math

ENCODER = "image_encoder.onnx"


def renamed(other):
    """A function from files to files, in which the image encoder has another name."""
    return lambda files: {other if name == ENCODER else name: entry for name, entry in files.items()}


def with_weights(name):
    """A function from files to files, in which the image encoder's weights are a file of that name."""
    return lambda files: {
        **files,
        name: files["tokenizer.json"] | {"role": "weights"},
        ENCODER: files[ENCODER] | {"external_data": [name]},
    }


def nested(depth):
    """Lists in lists."""
    return [nested(depth - 1)] if depth else []


KINDS = {
    # numbers
    "zero patch": ("image/patch_size", 0, "image.patch_size must be from 1 to 16,384, got 0"),
    "negative patch": ("image/patch_size", -8, "image.patch_size must be from 1"),
    "another patch": (
        "image/patch_size", 7,
        'files["image_encoder.onnx"].size must be two multiples of the patch, 7, got "96x96"',
    ),
    "half a patch": (
        "image/patch_size", 4,
        'files["image_encoder.onnx"].outputs.patch_features must be float [batch, 24, 24, 128]',
    ),
    "a patch as a float": ("image/patch_size", 8.0, "image.patch_size must be a whole number, got 8.0"),
    "a patch as a text": ("image/patch_size", "8", 'image.patch_size must be a whole number, got "8"'),
    "true for a number": ("image/patch_size", True, "image.patch_size must be a whole number, got true"),
    "a huge patch": ("image/patch_size", 10**30, "image.patch_size must be a whole number, got 1000"),
    "a large patch": ("image/patch_size", 10**12, "image.patch_size must be from 1 to 16,384, got 1000000000000"),
    "negative embedding": ("image/embed_dim", -1, "image.embed_dim must be from 1"),
    "another embedding": (
        "image/embed_dim", 64,
        "patch_features must be float [batch, 12, 12, 64], got float [batch, 12, 12, 128]",
    ),
    "zero default size": ("image/default_size", 0, "image.default_size must be from 1"),
    "a huge default size": ("image/default_size", 10**9, "image.default_size must be from 1 to 16,384"),
    "another policy": ("image/resize", "crop", 'image.resize must be one of shorter, squash, exact, got "crop"'),
    "two means": ("image/mean", [0.5, 0.5], "image.mean must be one for each of red, green and blue"),
    "no mean": ("image/mean", [], "image.mean must be one for each of"),
    "NaN mean": ("image/mean", [0.5, math.nan, 0.5], "image.mean[1] must be a finite number, got NaN"),
    "infinite mean": ("image/mean", [0.5, 0.5, math.inf], "image.mean[2] must be a finite number, got Infinity"),
    "a mean of bytes": ("image/mean", [123, 117, 104], "image.mean[0] must be from 0 to 1, got 123"),
    "true for a mean": ("image/mean", [True, 0.5, 0.5], "image.mean[0] must be a finite number, got true"),
    "a mean as an object": ("image/mean", {"r": 0.5}, "image.mean must be a list, got an object"),
    "zero std": ("image/std", [0.5, 0.5, 0], "image.std[2] must be from 0.001 to 1, got 0"),
    "negative std": ("image/std", [-0.5, 0.5, 0.5], "image.std[0] must be from 0.001"),
    "a tiny std": ("image/std", [1e-300, 0.5, 0.5], "image.std[0] must be from 0.001"),
    "infinite scale": ("defaults/logit_scale", math.inf, "defaults.logit_scale must be a finite number, got Inf"),
    "a scale beyond float": ("defaults/logit_scale", 10**400, "defaults.logit_scale must be a finite number, got 1"),
    "a huge scale": ("defaults/logit_scale", 1e+30, "defaults.logit_scale must be above 0 and at most 1e+06"),
    "zero scale": ("defaults/logit_scale", 0, "defaults.logit_scale must be above 0"),
    "a scale as a text": ("defaults/logit_scale", "100", 'defaults.logit_scale must be a finite number, got "1'),
    "a threshold above 1": ("defaults/threshold", 1.5, "defaults.threshold must be from 0 to 1, got 1.5"),
    "NaN threshold": ("defaults/heatmap_threshold", math.nan, "defaults.heatmap_threshold must be a finite number"),
    "no context": ("text/context_length", 0, "text.context_length must be from 2 to 65,536, got 0"),
    "a huge context": ("text/context_length", 10**12, "text.context_length must be from 2"),
    "depth in a number": ("image/patch_size", nested(400), "image.patch_size must be a whole number, got a list of 1"),
    "depth in a list": ("image/mean", [nested(400)] * 3, "image.mean[0] must be a finite number, got a list of 1"),
    # texts and tokens
    "a NaN token": ("text/known_tokens/3", math.nan, "text.known_tokens[3] must be a whole number, got NaN"),
    "a negative token": ("text/known_tokens/0", -1, "text.known_tokens[0] must be from 0"),
    "a huge token": ("text/known_tokens/0", 2**62, "text.known_tokens[0] must be from 0"),
    "tokens as a text": ("text/known_tokens", "all", 'text.known_tokens must be a list, got "all"'),
    "a negative end": ("text/end_token", -1, "text.end_token must be from 0"),
    "no padding": ("text/padding_token", None, "text.padding_token must be a whole number, got null"),
    "another rule of cutting": ("text/cutting", "none", 'text.cutting must be "the first context_length - 1 ids'),
    "a template without {}": ("text/templates/photo", ["a"], "text.templates.photo[0] must be a text with {}"),
    "no templates of a name": ("text/templates/photo", [], "text.templates.photo must be one template"),
    "a template as a number": ("text/templates/photo", [1], "text.templates.photo[0] must be a text, got 1"),
    "templates as a list": ("text/templates", ["{}"], "text.templates must be an object, got a list of 1"),
    "half a character": ("text/templates/photo", ["\ud800{}"], "text.templates.photo[0] must be a text, got"),
    "a name of half a character": ("versions/\ud800", "1", 'versions["\\ud800"] must be a name in Unicode'),
    # the model and the export
    "an empty name": ("model/name", "", 'model.name must be a name in printable characters, got ""'),
    "a name of two lines": ("model/name", "a\nb", 'model.name must be a name in printable characters, got "a\\nb'),
    "a surrogate": ("model/name", "\ud800", 'model.name must be a text, got "\\ud800"'),
    "a name as a list": ("model/name", [["x"] * 9] * 9, "model.name must be a text, got a list of 9"),
    "a short hash": ("model/weights_sha256", "abc", "model.weights_sha256 must be a SHA-256"),
    "a long hash": ("model/weights_sha256", "a" * 65, "model.weights_sha256 must be a SHA-256"),
    "an option as a list": (
        "model/options/iterations", [1],
        "model.options.iterations must be true or false or a whole number or",
    ),
    "another dtype": ("export/dtype", "fp32", 'export.dtype must be one of float32, bfloat16, float16, got "fp32'),
    "another export": ("export/format", "tflite", "export.format must be one of onnx, tensorrt"),
    "a number for a yes": ("export/with_preprocess", 1, "export.with_preprocess must be true or false, got 1"),
    "other preprocessing": (
        "export/with_preprocess", True,
        'files["image_encoder.onnx"].inputs.image is missing; it must be uint8',
    ),
    "another output": ("export/original", True, 'files["image_encoder.onnx"].outputs.original_features is missing'),
    "surgery": ("export/feature_surgery", True, 'files["image_encoder.onnx"].outputs.image_embedding is missing'),
    "dynamic": (
        "export/dynamic_size", True,
        'files["image_encoder.onnx"].size must be null, as dynamic_size is true, got "96x96"',
    ),
    "a version as a number": ("versions/torch", 2.1, "versions.torch must be a text, got 2.1"),
    "a version without end": (
        "versions/onnxruntime", "9" * 5000,
        "versions.onnxruntime must be a version of up to 100 printable characters, got ",
    ),
    "a version of two lines": ("versions/torch", "2.8\n0", "versions.torch must be a version of up to 100 printable"),
    "a check as a text": ("check", "fine", 'check must be a list, got "fine"'),
    "a check of nothing": ("check", [{}], "check[0].graph is missing"),
    # files
    "a parent's file": ("files", renamed("../x.onnx"), 'files["../x.onnx"] must be a path below the folder'),
    "a file behind a parent": ("files", renamed("a/../../x.onnx"), "must be a path below the folder"),
    "an absolute file": ("files", renamed("/etc/passwd"), 'files["/etc/passwd"] must be a path below the folder'),
    "a drive's file": ("files", renamed("C:x.onnx"), "must be a path below the folder"),
    "a backslash": ("files", renamed("..\\x.onnx"), "must be a path below the folder"),
    "an empty file name": ("files", renamed(""), 'files[""] must be a path below the folder'),
    "the folder": ("files", renamed("."), "must be a path below the folder"),
    "an empty part": ("files", renamed("a//b"), "must be a path below the folder"),
    "a zero byte": ("files", renamed("a\0b"), "must be a path below the folder"),
    "the manifest": ("files", renamed("manifest.json"), "must be a path below the folder"),
    "a long file name": ("files", renamed("../" + "x" * 5000), '...] must be a path below the folder'),
    "an unknown role": (
        "files/image_encoder.onnx/role", "encoder",
        'files["image_encoder.onnx"].role must be one of image_encoder, ',
    ),
    "an empty role": ("files/image_encoder.onnx/role", "", 'files["image_encoder.onnx"].role must be one of'),
    "a role as null": (
        "files/image_encoder.onnx/role", None,
        'files["image_encoder.onnx"].role must be a text, got null',
    ),
    "another role": (
        "files/image_encoder.onnx/role", "cosines",
        'files["image_encoder.onnx"].size must be null for the role cosines',
    ),
    "a hash in capitals": (
        "files/image_encoder.onnx/sha256", "A" * 64,
        'files["image_encoder.onnx"].sha256 must be a SHA-256',
    ),
    "half a patch more": (
        "files/image_encoder.onnx/size", [96, 100],
        'files["image_encoder.onnx"].size must be two multiples of the patch, 8, got "96x100"',
    ),
    "negative sizes": (
        "files/image_encoder.onnx/size", [-96, -96],
        'files["image_encoder.onnx"].size[0] must be from 1 to 16,384, got -96',
    ),
    "one side": (
        "files/image_encoder.onnx/size", [96],
        'files["image_encoder.onnx"].size must be a list of 2, got a list of 1',
    ),
    "no size": (
        "files/image_encoder.onnx/size", None,
        'files["image_encoder.onnx"].size must be two multiples of the patch, 8, got null',
    ),
    "another size": (
        "files/image_encoder.onnx/size", [96, 64],
        'files["image_encoder.onnx"].inputs.pixels must be float [batch, 3, 96, 64]',
    ),
    "a size of a text": ("files/text_encoder.onnx/size", [8, 8], 'files["text_encoder.onnx"].size must be null'),
    "another type": (
        "files/image_encoder.onnx/inputs/pixels/type", "int64",
        'files["image_encoder.onnx"].inputs.pixels must be float',
    ),
    "an unknown type": ("files/image_encoder.onnx/inputs/pixels/type", "f4", "inputs.pixels.type must be one of float"),
    "a dimension of 0": ("files/image_encoder.onnx/inputs/pixels/shape/1", 0, "shape[1] must be 1 or more, or a name"),
    "a negative one": ("files/image_encoder.onnx/inputs/pixels/shape/1", -3, "shape[1] must be 1 or more, or a name"),
    "a free dimension": (
        "files/image_encoder.onnx/inputs/pixels/shape/1", "x",
        "inputs.pixels must be float [batch, 3, 96, 96], got float [batch, x, 96, 96]",
    ),
    "a rank": (
        "files/image_encoder.onnx/inputs/pixels/shape", [3, 96, 96],
        'files["image_encoder.onnx"].inputs.pixels must be float',
    ),
    "no output": (
        "files/image_encoder.onnx/outputs", {},
        'files["image_encoder.onnx"].outputs.patch_features is missing',
    ),
    "an input of the tokenizer": (
        "files/tokenizer.json/inputs", {"x": {"type": "float", "shape": []}},
        'files["tokenizer.json"].inputs.x is unknown; known are none',
    ),
    "weights elsewhere": (
        "files/image_encoder.onnx/external_data", ["../w"],
        "external_data[0] must be a file of the role wei",
    ),
    "weights in a folder": ("files", with_weights("w/x"), "external_data[0] must be a file of the role weights beside"),
    "weights that are none": (
        "files/image_encoder.onnx/external_data", ["text_encoder.onnx"],
        "external_data[0] must be a file of the role w",
    ),
    "a file as null": ("files/b.onnx", None, 'files["b.onnx"] must be an object, got null'),
    # objects
    "an unknown entry": ("image/patchsize", 8, "image.patchsize is unknown; known are patch_size, embed_dim, mean"),
    "an optional input": (
        "files/labels.onnx/inputs/threshold/optional", True,
        'files["labels.onnx"].inputs.threshold.optional is unknown; known are type, shape',
    ),
    "an unknown section": ("extra", {}, "extra is unknown; known are model, image, text"),
    "a section as a list": ("image", [], "image must be an object, got a list of 0"),
    "files as a list": ("files", ["image_encoder.onnx"], "files must be an object, got a list of 1"),
}  # fmt: skip

# The same in the manifest of a segmenter with scores for the classes cat and car, and tree behind them.
VOCABULARY_KINDS = {
    "none": ("vocabulary", None, "vocabulary must be an object in the format segmenter, got null"),
    "a list": ("vocabulary", ["cat"], "vocabulary must be an object, got a list of 1"),
    "no classes": ("vocabulary/classes", {}, "vocabulary.classes must be one class or more, got an object"),
    "one class of two": (
        "vocabulary/classes", {"cat": ["cat"]},
        'files["segmenter.onnx"].outputs.scores must be float [batch, 1, 12, 12], got float [batch, 2, 12, 12]',
    ),
    "a class without a name": (
        "vocabulary/classes", {" ": ["cat"], "car": ["car"]},
        'vocabulary.classes[" "] must be a class with a name, got " "',
    ),
    "a class without words": ("vocabulary/classes/car", [], "vocabulary.classes.car must be one word or more"),
    "an empty word": ("vocabulary/classes/car", ["car", ""], "vocabulary.classes.car must be one word or more"),
    "a word as a number": ("vocabulary/classes/car", [1], "vocabulary.classes.car[0] must be a text, got 1"),
    "words as a text": ("vocabulary/background/tree", "tree", "vocabulary.background.tree must be a list"),
    "background without words": ("vocabulary/background/tree", [], "vocabulary.background.tree must be one word"),
    "depth in words": ("vocabulary/classes/car", nested(400), "vocabulary.classes.car[0] must be a text, got a list"),
    "no templates": ("vocabulary/templates", [], "vocabulary.templates must be one template or more"),
    "a template without {}": ("vocabulary/templates", ["a"], "vocabulary.templates[0] must be a text with {}"),
    "infinite scale": ("vocabulary/logit_scale", math.inf, "vocabulary.logit_scale must be a finite number, got Inf"),
    "zero scale": ("vocabulary/logit_scale", 0, "vocabulary.logit_scale must be above 0"),
    "NaN threshold": ("vocabulary/threshold", math.nan, "vocabulary.threshold must be a finite number, got NaN"),
    "a threshold above 1": ("vocabulary/threshold", 2, "vocabulary.threshold must be from 0 to 1, got 2"),
    "other outputs": (
        "vocabulary/with_scores", False, 'files["segmenter.onnx"].outputs.scores is unknown; known are labels, conf',
    ),
    "any size": ("export/dynamic_size", True, "export.dynamic_size must be false for a segmenter, got true"),
    "no size": (
        "files/segmenter.onnx/size", None,
        'files["segmenter.onnx"].size must be two multiples of the patch, 8, got null',
    ),
    "another size": (
        "files/segmenter.onnx/size", [96, 64],
        'files["segmenter.onnx"].inputs.pixels must be float [batch, 3, 96, 64]',
    ),
    "bytes": ("export/with_preprocess", True, 'files["segmenter.onnx"].inputs.image is missing; it must be uint8'),
    "an encoder": (
        "files/segmenter.onnx/role", "image_encoder",
        'files["segmenter.onnx"].role must be segmenter in the format segmenter, got "image_encoder"',
    ),
    "another export": ("export/format", "onnx", "vocabulary must be null in the format onnx, got an object"),
}  # fmt: skip
# Wrong in every format; `file` stands for the one that takes images, and `files` for another name of it.
COMMON_KINDS = {
    "nested": (None, "[" * 100_000, "nested too deeply"),
    "zero patch": ("image/patch_size", 0, "image.patch_size must be from 1 to 16,384, got 0"),
    "two means": ("image/mean", [0.5, 0.5], "image.mean must be one for each of red, green and blue"),
    "NaN mean": ("image/mean", [0.5, math.nan, 0.5], "image.mean[1] must be a finite number, got NaN"),
    "zero std": ("image/std", [0.5, 0.5, 0], "image.std[2] must be from 0.001 to 1, got 0"),
    "infinite scale": ("defaults/logit_scale", math.inf, "defaults.logit_scale must be a finite number, got Inf"),
    "negative size": ("file/size", [-96, -96], "size[0] must be from 1 to 16,384, got -96"),
    "negative sizes": ("export/sizes", [[-96, -96]], "export.sizes[0][0] must be from 1 to 16,384, got -96"),
    "a parent's file": ("files", "../x", 'files["../x"] must be a path below the folder'),
    "another format's file": ("file/role", "weights", "must be null for the role weights"),
    "another kind of int8": ("export/quantize", "int4", "export.quantize must be null or one of int8, int8-static"),
    "a negative opset": ("export/opset", -1, "export.opset must be from 1 to"),
}
