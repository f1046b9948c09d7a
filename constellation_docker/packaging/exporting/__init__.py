"""Exports a transformers repository to ONNX, and measures whether the graph answers as the original does.

It runs as a program of its own (`python -m exporting`), in a container without network that holds torch,
transformers, onnx, onnxscript and onnxruntime: the model is a stranger's. It imports nothing of the rest of
the project, so that the directory is copied as it is. `packaging/export.py` is its other side.
"""
