"""Images to arrays, as `preprocessor_config.json` describes it, with pillow and numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..model import LoadFailed
from .network import Array
from .repository import Repository

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5)

_KNOWN: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    # Processors whose steps are the plain ones below, with the mean and deviation that each assumes.
    "ViT": (_HALF, _HALF),
    "DeiT": (_IMAGENET_MEAN, _IMAGENET_STD),
    "Beit": (_HALF, _HALF),
    "BiT": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "Bit": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "CLIP": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "ConvNext": (_IMAGENET_MEAN, _IMAGENET_STD),
    "MobileNetV1": (_HALF, _HALF),
    "MobileNetV2": (_HALF, _HALF),
    "PoolFormer": (_IMAGENET_MEAN, _IMAGENET_STD),
    "Siglip": (_HALF, _HALF),
}


@dataclass(frozen=True, slots=True)
class ImageProcessor:
    """What happens to an image before the network sees it.

    Attributes:
        size: `(height, width)` to resize to, or the shortest edge, or None.
        resample: pillow's filter.
        warps: Whether a shortest edge from 384 up means resizing to a square (ConvNeXT).
        crop_pct: How much of the resized image the crop keeps (ConvNeXT, PoolFormer), or None.
        crop: `(height, width)` cut from the middle, or None.
        scale: What pixel values are multiplied with.
        mean: Subtracted from each channel.
        std: Each channel is divided by it.
    """

    size: tuple[int, int] | int | None
    resample: Image.Resampling
    warps: bool
    crop_pct: float | None
    crop: tuple[int, int] | None
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def process(self, image: Image.Image) -> Array:
        """The image's array, float32, shape `(3, height, width)`."""
        image = self._resize(image)
        if self.crop is not None:
            image = _crop_center(image, *self.crop)
        pixels = np.asarray(image, dtype=np.float32) * np.float32(self.scale)
        pixels -= np.asarray(self.mean, np.float32)
        pixels /= np.asarray(self.std, np.float32)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1))

    def _resize(self, image: Image.Image) -> Image.Image:
        if isinstance(self.size, tuple):
            height, width = self.size
            return image.resize((width, height), self.resample)
        if self.size is None:
            return image
        edge = self.size
        if self.crop_pct is not None:
            if self.warps and edge >= 384:
                return image.resize((edge, edge), self.resample)
            resized = _resize_shortest(image, int(edge / self.crop_pct), self.resample)
            return _crop_center(resized, edge, edge) if self.warps else resized
        return _resize_shortest(image, edge, self.resample)


def load_image_processor(repository: Repository) -> ImageProcessor:
    """Read `preprocessor_config.json`.

    Raises:
        LoadFailed: it is missing, or describes a processor that this runtime does not know.
    """
    config = repository.read_object("preprocessor_config.json")
    if not config:
        raise LoadFailed(
            "the repository has no preprocessor_config.json, which the onnx runtime needs for images"
        )
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    family = next(
        (
            name
            for name in _KNOWN
            if kind.startswith(name) and kind[len(name) :].startswith(("Image", "Feature"))
        ),
        None,
    )
    if family is None:
        raise LoadFailed(
            f"the image processor {kind or 'without a type'} is not one of the onnx runtime's "
            f"({', '.join(sorted(_KNOWN))}); serve the model with the transformers runtime"
        )
    mean, std = _KNOWN[family]
    warps = family == "ConvNext"
    is_normalized = bool(config.get("do_normalize", True))
    is_cropped = bool(config.get("do_center_crop", "crop_size" in config)) and not warps
    crop = _read_size(config.get("crop_size")) if is_cropped else None
    return ImageProcessor(
        size=_read_size(config.get("size")) if config.get("do_resize", True) else None,
        resample=Image.Resampling(int(config.get("resample", Image.Resampling.BILINEAR))),
        warps=warps,
        crop_pct=float(config.get("crop_pct") or 224 / 256) if warps or config.get("crop_pct") else None,
        crop=(crop, crop) if isinstance(crop, int) else crop,
        scale=float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 1.0,
        mean=tuple(config.get("image_mean") or mean) if is_normalized else (0.0,),
        std=tuple(config.get("image_std") or std) if is_normalized else (1.0,),
    )


def _read_size(value: Any) -> tuple[int, int] | int | None:
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, dict):
        if "shortest_edge" in value:
            return int(value["shortest_edge"])
        if {"height", "width"} <= value.keys():
            return int(value["height"]), int(value["width"])
    raise LoadFailed(
        "preprocessor_config.json gives a size that is neither height and width nor a shortest edge"
    )


def _resize_shortest(image: Image.Image, edge: int, resample: Image.Resampling) -> Image.Image:
    width, height = image.size
    short, long = min(width, height), max(width, height)
    longer = max(1, int(edge * long / short))
    target = (edge, longer) if width <= height else (longer, edge)
    return image.resize(target, resample)


def _crop_center(image: Image.Image, height: int, width: int) -> Image.Image:
    """The middle of the image; black where the image is smaller."""
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))
