"""Segmentation of many files: images in, files and a line of `summary.jsonl` for each out. Needs no torch."""

from .options import BatchOptions
from .progress import Progress
from .records import Record
from .records import read_records as records
from .run import Outcome, segment_files

__all__ = ["BatchOptions", "Outcome", "Progress", "Record", "records", "segment_files"]
