"""The inference server that ships inside every image.

It answers the Hugging Face wire contract (`POST /`, `/predict`), the OpenAI routes where the model
has them, and the operational routes (`/health`, `/ready`, `/metrics`, …). Its size and its start-up
time are every model's size and start-up time, so this room imports nothing of the rest of the
project and nothing heavier than `httptools` before a runtime asks for it.

In images the same files lie under the name `constellation_serving`, so imports inside this room are
relative. Start it with `python -m constellation_serving`.

* `model` — what a model is to the server, and the errors that a client may see
* `config` — what the server is told: `/card/serving.json` and `SERVING_*` variables
* `loading`, `runtimes/`, `tasks/` — from a configuration to a model
* `server`, `connection`, `exchange`, `application`, `batching`, `worker` — from a socket to the model and back
* `operations`, `openapi`, `page`, `metrics`, `logs` — what is asked about the server rather than of the model
"""

__version__ = "0.1.0"
