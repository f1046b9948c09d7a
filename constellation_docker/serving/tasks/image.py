"""Opens images from strangers: only formats that are expected, only sizes that memory can hold."""

from __future__ import annotations

import warnings
from typing import IO

from PIL import Image, ImageOps, UnidentifiedImageError

from ..model import InvalidParameters, TooLarge

MAX_PIXELS = 64_000_000
"""A file of some kilobytes may claim to be larger than any memory; what it claims is read before it is unpacked."""

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM")


def open_image(file: IO[bytes]) -> Image.Image:
    """The image in RGB, turned as its EXIF data say.

    Raises:
        InvalidParameters: it is no image of a format that is taken, or it is broken.
        TooLarge: it has more than MAX_PIXELS pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(file, formats=FORMATS)
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise TooLarge(f"The image has {width}x{height} pixels; at most {MAX_PIXELS} are taken.")
            image.load()
            return (ImageOps.exif_transpose(image) or image).convert("RGB")
    except UnidentifiedImageError:
        raise InvalidParameters(f"The bytes are not an image ({', '.join(FORMATS)}).") from None
    except Image.DecompressionBombError:
        raise TooLarge(f"The image has too many pixels; at most {MAX_PIXELS} are taken.") from None
    except (
        OSError,
        ValueError,
        SyntaxError,
        EOFError,
        IndexError,
        KeyError,
        TypeError,
        OverflowError,
    ) as problem:
        # What pillow's readers raise on files that are cut off or lie about themselves.
        raise InvalidParameters("The image is broken and cannot be decoded.") from problem
