"""One adapter a task: it parses a request, runs a batch of them and gives the answer its wire shape.

The shapes are those that `huggingface_hub.InferenceClient` and `@huggingface/inference` send and expect. An
adapter asks its runtime only for numbers (`runtimes.network.Network`), so the same request has the same
answer under onnxruntime and under torch.
"""
