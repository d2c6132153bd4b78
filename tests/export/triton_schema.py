"""The published schema of model configurations, by its path: importing it as part of its package needs gRPC."""

import importlib.util
from pathlib import Path

from google.protobuf import text_format


def read_schema(package):
    """The module of the schema in the folder of the package tritonclient."""
    spec = importlib.util.spec_from_file_location("model_config_pb2", Path(package, "grpc", "model_config_pb2.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def read_configs(models, schema):
    """The parsed configuration of each model of a repository, by its folder's name."""
    folders = sorted(models.iterdir())
    return {f.name: text_format.Parse((f / "config.pbtxt").read_text(), schema.ModelConfig()) for f in folders}
