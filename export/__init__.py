"""Exports: ONNX, TensorRT, NVIDIA Triton Inference Server and AOTInductor packages."""
