"""What the check of an export found, and the model that was exported."""

from gem_fast.towers.layer import Linear


def largest_error(manifest, output="patch_features"):
    """The largest relative error of an output."""
    return max(row.relative for row in manifest.check if row.output == output)


def fewest_labels(manifest):
    """The smallest share of pixels with the engine's label."""
    return min(row.labels for row in manifest.check if row.output == "patch_features")


def packed(model):
    """Whether each linear layer's weight lies as the CPU's product reads it."""
    layers = (each for tower in (model.vision, model.text.tower) for each in tower.modules())
    return [each.is_packed for each in layers if isinstance(each, Linear)]
