"""Evaluation on labelled data: readers of data sets, metrics, protocols by name, and the paper's studies."""

from .datasets import DATA, open_data
from .labelled import Dataset
from .loop import Evaluation
from .metrics import Areas, areas
from .protocols import PROTOCOLS, Protocol
from .run import evaluate

__all__ = ["DATA", "PROTOCOLS", "Areas", "Dataset", "Evaluation", "Protocol", "areas", "evaluate", "open_data"]
