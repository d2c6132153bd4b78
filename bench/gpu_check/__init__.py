"""Every Triton kernel on the GPU at hand against float64 and against its rivals: `python -m gem_fast.bench.gpu_check`.

Data flows one way: cases → verify → timing → report. Only the clock needs a GPU.
"""
