"""What computes: onnxruntime, transformers on torch, or the repository's own `handler.py`.

Each runtime imports its libraries when it loads a model, never before: an image holds only one of them.
"""
