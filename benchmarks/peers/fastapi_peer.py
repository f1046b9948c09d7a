"""FastAPI around a transformers pipeline: what most people write first."""

from __future__ import annotations

import os

import torch
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

torch.set_num_threads(int(os.environ["PEER_THREADS"]))
classify = pipeline("text-classification", model=os.environ["PEER_MODEL"], top_k=None)
app = FastAPI()


class Body(BaseModel):
    inputs: str


@app.post("/predict")
def predict(body: Body) -> list:
    return classify([body.inputs])


if __name__ == "__main__":
    uvicorn.run(app, port=int(os.environ["PEER_PORT"]), log_level="error")
