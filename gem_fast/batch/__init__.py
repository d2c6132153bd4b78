"""Segmentation of many files: images in, files and a line of `summary.jsonl` for each out. Needs no torch."""

from .run import segment_files

__all__ = ["segment_files"]
