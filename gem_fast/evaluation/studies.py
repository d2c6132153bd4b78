"""The paper's studies of self-self attention, each a table of lines and a picture."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ImageError, missing_extra
from .labelled import Dataset, checked_truth
from .plots import figure, save

if TYPE_CHECKING:
    from ..model import GemModel

TEMPERATURES, ITERATIONS = (0.07, 0.10, 0.13, 0.18), (3, 10, 30)
_VECTORS, _WIDTH = 20, 5
_SAME = 0.99  # cosine from which two vectors are of one cluster
# "Grounding Everything" (CVPR 2024), section 3.2: mean and deviation of the projections' Lipschitz constants.
PAPER_LIPSCHITZ = {"v": (0.51, 0.073), "k": (0.63, 0.091), "q": (0.66, 0.104)}


@dataclass(frozen=True)
class Study:
    """What came out: lines to print, numbers by name for whoever goes on with them, and why images failed."""

    lines: tuple[str, ...]
    values: dict[str, Any]
    failures: tuple[str, ...] = ()


def self_self(points: np.ndarray, temperature: float, iterations: int) -> np.ndarray:
    """Eq. 5 in float64: unit vectors `[N, D]` after so many iterations, with the attention's own softmax."""
    for _ in range(iterations):
        logits = points @ points.T / temperature
        weights = np.exp(logits - logits.max(1, keepdims=True))
        points = _units(weights @ points)
    return points


def clusters(points: np.ndarray, same: float = _SAME) -> np.ndarray:
    """Which cluster each unit vector is of, `[N]`: those that are linked by cosines from `same` on."""
    linked = points @ points.T >= same
    found = np.full(len(points), -1)
    for start in range(len(points)):
        if found[start] < 0:
            reached = np.zeros(len(points), bool)
            reached[start] = True
            while (grown := linked[reached].any(0)).sum() > reached.sum():
                reached = grown
            found[reached] = found.max() + 1
    return found


def clustering(out: Path, seed: int = 0) -> Study:
    """Figure 3: 20 random vectors of 5 numbers after some iterations, for some temperatures."""
    generator = np.random.default_rng(seed)
    vectors = generator.standard_normal((_VECTORS, _WIDTH)) @ generator.standard_normal((_WIDTH, _WIDTH))
    drawn, axes = figure(len(TEMPERATURES), len(ITERATIONS), figsize=(7, 9))
    counts: dict[tuple[float, int], int] = {}
    for (i, temperature), (j, iterations) in product(enumerate(TEMPERATURES), enumerate(ITERATIONS)):
        points = self_self(_units(vectors), temperature, iterations)
        found = clusters(points)
        counts[temperature, iterations] = int(found.max()) + 1
        order = np.argsort(found, kind="stable")
        axis = axes[i, j]
        axis.imshow(points[order] @ points[order].T, vmin=-1, vmax=1, cmap="RdBu_r")
        axis.set_title(
            f"τ = {temperature:.2f}, {iterations} it.: {counts[temperature, iterations]} clusters", fontsize=9
        )
        axis.set_xticks([])
        axis.set_yticks([])
    drawn.suptitle("Cosines of 20 vectors, those of one cluster side by side", fontsize=11)
    save(drawn, out / "clustering.png")
    lines = [f"clusters of {_VECTORS} random vectors of {_WIDTH} numbers, by temperature and iterations"]
    lines += [
        f"τ = {each:.2f}: " + ", ".join(f"{counts[each, k]} after {k}" for k in ITERATIONS) for each in TEMPERATURES
    ]
    return Study(tuple(lines), {"counts": counts})


def kmeans(out: Path, seed: int = 0, trials: int = 10) -> Study:
    """Self-self attention beside k-means, on points around known centres that lie ever wider (adjusted Rand index)."""
    try:
        from sklearn.cluster import KMeans
        from sklearn.metrics import adjusted_rand_score
    except ImportError as error:
        raise missing_extra("comparing with k-means", "evaluation", error) from error
    spreads, rows = (0.4, 0.8, 1.2, 1.6, 2.0), []
    for spread in spreads:
        scores = []
        for trial in range(trials):
            generator = np.random.default_rng((seed, trial))
            centres = _units(generator.standard_normal((6, 32)))
            truth = np.repeat(np.arange(6), 20)
            points = _units(centres[truth] + spread * generator.standard_normal((120, 32)) / np.sqrt(32))
            ours = clusters(self_self(points, 0.1, 10))
            theirs = KMeans(6, n_init=10, random_state=trial).fit_predict(points)
            pairs = ((ours, theirs), (ours, truth), (theirs, truth))
            scores.append([adjusted_rand_score(*pair) for pair in pairs])
        rows.append(np.mean(scores, 0))
    drawn, axes = figure(figsize=(6, 4))
    names = ("self-self attention and k-means", "self-self attention and the truth", "k-means and the truth")
    for name, values in zip(names, np.transpose(rows), strict=True):
        axes[0, 0].plot(spreads, values, "o-", label=name)
    axes[0, 0].set_xlabel("mean distance of the points from their centres, which are unit vectors")
    axes[0, 0].set_ylabel("adjusted Rand index")
    axes[0, 0].set_ylim(0, 1.05)
    axes[0, 0].legend()
    axes[0, 0].grid(alpha=0.3)
    save(drawn, out / "kmeans.png")
    lines = [f"adjusted Rand index of 120 points around 6 centres, mean of {trials} trials; τ = 0.1, 10 iterations"]
    lines += [
        f"spread {spread}: " + ", ".join(f"{name} {value:.2f}" for name, value in zip(names, row, strict=True))
        for spread, row in zip(spreads, rows, strict=True)
    ]
    return Study(tuple(lines), {"spreads": spreads, "agreement": np.array(rows)})


def lipschitz(model: "GemModel", out: Path) -> Study:
    """Section 3.2: the largest singular value of each block's q, k and v projection."""
    import torch

    weights = [block.qkv.weight.detach().float().cpu().chunk(3) for block in model.vision.blocks]  # type: ignore[union-attr, operator]
    values = np.array([[float(torch.linalg.matrix_norm(part, 2)) for part in each] for each in weights])
    drawn, axes = figure(figsize=(6, 4))
    lines = [f"Lipschitz constants of {model.name}'s projections, mean ± deviation over its {len(values)} blocks"]
    for letter, column in zip("qkv", values.T, strict=True):
        axes[0, 0].plot(range(1, len(column) + 1), column, "o-", label=letter)
        mean, deviation = PAPER_LIPSCHITZ[letter]
        lines.append(f"{letter}: {column.mean():.2f} ± {column.std():.3f}; the paper's models {mean} ± {deviation}")
    axes[0, 0].axhline(1, color="grey", linestyle=":")
    axes[0, 0].set_xlabel("block")
    axes[0, 0].set_ylabel("largest singular value")
    axes[0, 0].legend()
    save(drawn, out / "lipschitz.png")
    return Study(tuple(lines), dict(zip("qkv", values.T, strict=True)))


MEASURES = ("patch-patch similarity", "object-background contrast", "text-object contrast")


def localization(model: "GemModel", dataset: Dataset, out: Path, images: int = 100, size: int | None = None) -> Study:
    """Figure 5's measures after each block, for CLIP, CLIP Surgery and GEM with 1, 2 and 3 iterations.

    Over the patches of an image: the mean cosine of any two; that of two of one object less that of its patches with
    the rest; and that of an object's patches with its word less that of the rest. Images that can't be used are left
    out and told.

    Raises:
        ValueError: the model's method is not GEM, or no image could be used.
    """
    import torch

    from ..images import load_image
    from ..method import methods
    from ..preprocess import normalised
    from .sweep import Variant, layers

    gem = model.vision.method
    if gem.name != "gem":
        raise ValueError(f"the study compares GEM with others: load the model with method gem, not {gem.name}")
    variants = [Variant("CLIP Surgery", methods()["clip-surgery"])]
    variants += [Variant(f"GEM, {k} it.", _iterated(gem, k)) for k in (1, 2, 3)]
    words = model.encode_text([each.synonyms[0] for each in dataset.classes]).to(model.device)
    names = ["CLIP", *(each.name for each in variants)]
    sums = np.zeros((len(model.vision.blocks), len(names), 3))
    counts = np.zeros_like(sums)
    failures: list[str] = []
    wanted = min(images, len(dataset.images))
    for index in range(wanted):
        try:
            picture = load_image(dataset.images[index])
            truth = checked_truth(dataset, index, (picture.height, picture.width))
            shape = model.input_size((picture.height, picture.width), size, None)
        except ImageError as error:
            failures.append(str(error))
            continue
        pixels = torch.from_numpy(normalised(model.pixels(picture, shape)[None], model.mean, model.std))
        masks = _patch_masks(truth, dataset.background, tuple(side // model.patch_size for side in shape))
        with torch.inference_mode():
            found = layers(model.vision, variants, pixels.to(model.device), original=True)
            for layer, paths in enumerate(found):
                for k, path in enumerate(paths):
                    if path is not None:
                        patches = model.vision.head(path)[0, model.vision.config.first_patch :]
                        measured = _measured(patches, masks, words)
                        known = ~np.isnan(measured)
                        sums[layer, k, known] += measured[known]
                        counts[layer, k] += known
    if len(failures) == wanted:
        raise ImageError(f"no image could be used: {failures[0]}")
    means = np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)
    drawn, axes = figure(1, 3, figsize=(13, 4))
    for measure, (axis, title) in enumerate(zip(axes[0], MEASURES, strict=True)):
        for k, name in enumerate(names):
            axis.plot(range(1, len(means) + 1), means[:, k, measure], "o-", label=name, markersize=3)
        axis.set_title(title)
        axis.set_xlabel("block")
        axis.grid(alpha=0.3)
    drawn.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(names))
    save(drawn, out / "localization.png")
    lines = [f"after the last block, on {wanted - len(failures)} images of {dataset.name}, {model.name}"]
    lines += [
        f"{name}: " + ", ".join(f"{title} {value:.3f}" for title, value in zip(MEASURES, means[-1, k], strict=True))
        for k, name in enumerate(names)
    ]
    return Study(tuple(lines), {"names": names, "means": means}, tuple(failures))


def _iterated(method: Any, iterations: int) -> Any:
    from dataclasses import replace

    return replace(method, iterations=iterations)


def _patch_masks(truth: np.ndarray, background: bool, grid: Sequence[int]) -> dict[int, np.ndarray]:
    """Of each class of an image's labels that is no background, which patches are mostly its own: bool `[h·w]`."""
    rows, columns = (np.arange(side) * count // side for side, count in zip(truth.shape, grid, strict=True))
    cells = rows[:, None] * grid[1] + columns
    total = np.bincount(cells.ravel(), minlength=grid[0] * grid[1])
    first = 1 if background else 0
    masks = {}
    for label in np.unique(truth[truth >= first]).tolist():
        share = np.bincount(cells[truth == label], minlength=len(total)) / np.maximum(total, 1)
        if 0 < (share > 0.5).sum() < len(share):
            masks[label] = share > 0.5
    return masks


def _measured(features: Any, masks: dict[int, np.ndarray], words: Any) -> np.ndarray:
    """The three measures of one image's unit features `[N, E]`; NaN where it has no object."""
    cosines = (features @ features.T).cpu().numpy()
    texts = (features @ words.T).cpu().numpy()
    contrasts = [
        (cosines[np.ix_(mask, mask)].mean() - cosines[np.ix_(mask, ~mask)].mean(),
         texts[mask, label].mean() - texts[~mask, label].mean())
        for label, mask in masks.items()
    ]  # fmt: skip
    return np.array([cosines.mean(), *(np.mean(contrasts, 0) if contrasts else (np.nan, np.nan))])


def _units(points: np.ndarray) -> np.ndarray:
    return points / np.linalg.norm(points, axis=1, keepdims=True)
