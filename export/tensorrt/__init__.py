"""TensorRT: engines from the ONNX graphs, and the fused Triton kernels as plugins inside them.

Importing this needs neither TensorRT nor Triton.
"""
