"""What the check of an export found."""


def largest_error(manifest, output="patch_features"):
    """The largest relative error of an output."""
    return max(row.relative for row in manifest.check if row.output == output)


def fewest_labels(manifest):
    """The smallest share of pixels with the engine's label."""
    return min(row.labels for row in manifest.check if row.output == "patch_features")
