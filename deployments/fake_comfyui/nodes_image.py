"""Node classes that compute on pictures and masks. IMAGE is a batch of BGR pictures, MASK a batch of float masks."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, ImageSequence

from deployments.fake_comfyui.comfy_node import MAX_SIDE_PX, Input, NodeClass, NodeContext, Site
from deployments.fake_comfyui.pictures import Masks, Picture, Pictures

INTERPOLATIONS = {
    "nearest-exact": cv2.INTER_NEAREST_EXACT,
    "bilinear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "bicubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}
CHANNELS = {"red": 2, "green": 1, "blue": 0}  # of a BGR picture
NO_MASK_SIDE = 64  # LoadImage gives an empty mask of this size for a picture without alpha

SIDE = {"default": 512, "min": 1, "max": MAX_SIDE_PX, "step": 1}
SIDE_OR_ZERO = {"default": 512, "min": 0, "max": MAX_SIDE_PX, "step": 1}
BATCH = {"default": 1, "min": 1, "max": 4096}
METHODS = tuple(INTERPOLATIONS)


def load_image(image: str, context: NodeContext) -> tuple[Pictures, Masks]:
    """Load a picture, all frames of an animated one; the mask is 1 where it is transparent."""
    pictures: list[Picture] = []
    masks: list[NDArray[np.float32]] = []
    with Image.open(context.site.files.locate(image)) as file:
        for raw in ImageSequence.Iterator(file):
            frame = ImageOps.exif_transpose(raw)
            picture = np.asarray(frame.convert("RGB"))[..., ::-1]
            if pictures and picture.shape != pictures[0].shape:
                continue
            pictures.append(picture)
            masks.append(_transparency(frame))
    return np.stack(pictures), np.stack(masks)


def load_mask(image: str, channel: str, context: NodeContext) -> tuple[Masks]:
    """Load one channel of a picture as a mask; alpha is inverted."""
    with Image.open(context.site.files.locate(image)) as file:
        pixels = np.asarray(ImageOps.exif_transpose(file).convert("RGBA"), np.float32) / np.float32(255)
    mask = pixels[..., ("red", "green", "blue", "alpha").index(channel)]
    return ((1 - mask if channel == "alpha" else mask)[None],)


def make_empty(width: int, height: int, batch_size: int = 1, color: int = 0) -> tuple[Pictures]:
    """Make pictures of one colour, given as 0xRRGGBB."""
    pictures = np.empty((batch_size, height, width, 3), np.uint8)
    pictures[:] = (color & 0xFF, color >> 8 & 0xFF, color >> 16 & 0xFF)
    return (pictures,)


def invert(image: Pictures) -> tuple[Pictures]:
    """Invert the colours."""
    return (255 - image,)


def scale(image: Pictures, upscale_method: str, width: int, height: int, crop: str) -> tuple[Pictures]:
    """Scale to a size; a side of 0 follows the other one; ``crop`` "center" keeps the proportions by cutting."""
    if width == height == 0:
        return (image,)
    rows, columns = image.shape[1:3]
    width = width or max(1, round(columns * height / rows))
    height = height or max(1, round(rows * width / columns))
    return (_resize(_crop_to_aspect(image, width / height) if crop == "center" else image, width, height, upscale_method),)


def scale_by(image: Pictures, upscale_method: str, scale_by: float) -> tuple[Pictures]:
    """Scale by a factor."""
    rows, columns = image.shape[1:3]
    return (_resize(image, max(1, round(columns * scale_by)), max(1, round(rows * scale_by)), upscale_method),)


def blur(image: Pictures, blur_radius: int, sigma: float) -> tuple[Pictures]:
    """Blur with a Gaussian kernel."""
    size = blur_radius * 2 + 1
    return (np.stack([cv2.GaussianBlur(picture, (size, size), sigma) for picture in image]),)


def crop(image: Pictures, width: int, height: int, x: int, y: int) -> tuple[Pictures]:
    """Cut a rectangle out, smaller where it would stand over."""
    x, y = min(x, image.shape[2] - 1), min(y, image.shape[1] - 1)
    return (image[:, y : y + height, x : x + width],)


def join_batches(image1: Pictures, image2: Pictures) -> tuple[Pictures]:
    """Join two batches; the second takes the size of the first."""
    rows, columns = image1.shape[1:3]
    if image2.shape[1:] != image1.shape[1:]:
        image2 = _resize(_crop_to_aspect(image2, columns / rows), columns, rows, "bilinear")
    return (np.concatenate([image1, image2]),)


def repeat(image: Pictures, amount: int) -> tuple[Pictures]:
    """Repeat a batch."""
    return (np.tile(image, (amount, 1, 1, 1)),)


def measure(image: Pictures, context: NodeContext) -> tuple[int, int, int]:
    """Return width, height and batch size, and show them at the node."""
    batch_size, height, width = image.shape[:3]
    context.send_text(f"width: {width}, height: {height}\n batch size: {batch_size}")
    return width, height, batch_size


def mask_to_image(mask: Masks) -> tuple[Pictures]:
    """Make grey pictures of masks."""
    grey = np.clip(mask * 255, 0, 255).astype(np.uint8)
    return (np.repeat(grey[..., None], 3, axis=-1),)


def image_to_mask(image: Pictures, channel: str) -> tuple[Masks]:
    """Take a channel as a mask; pictures have no alpha here, so that channel is opaque."""
    if channel == "alpha":
        return (np.ones(image.shape[:3], np.float32),)
    return (image[..., CHANNELS[channel]].astype(np.float32) / np.float32(255),)


def _transparency(frame: Image.Image) -> NDArray[np.float32]:
    if "A" not in frame.getbands() and "transparency" not in frame.info:
        return np.zeros((NO_MASK_SIDE, NO_MASK_SIDE), np.float32)
    return 1 - np.asarray(frame.convert("RGBA").getchannel("A"), np.float32) / np.float32(255)


def _resize(pictures: Pictures, width: int, height: int, method: str) -> Pictures:
    return np.stack([cv2.resize(picture, (width, height), interpolation=INTERPOLATIONS[method]) for picture in pictures])


def _crop_to_aspect(pictures: Pictures, aspect: float) -> Pictures:
    rows, columns = pictures.shape[1:3]
    keep_columns, keep_rows = min(columns, round(rows * aspect)), min(rows, round(columns / aspect))
    left, top = (columns - keep_columns) // 2, (rows - keep_rows) // 2
    return pictures[:, top : top + max(1, keep_rows), left : left + max(1, keep_columns)]


def _check_picture(site: Site, value: str) -> str | None:
    return None if site.files.has_input(value) else f"Invalid image file: {value}"


def _print_of_picture(site: Site, image: str, **_: object) -> str:
    return site.files.fingerprint(image)


NODE_CLASSES = (
    NodeClass(
        "LoadImage",
        load_image,
        (Input("image", lambda site: site.files.input_names("image"), {"image_upload": True}),),
        ("IMAGE", "MASK"),
        display_name="Load Image",
        fingerprint=_print_of_picture,
        check=_check_picture,
        checked_input="image",
    ),
    NodeClass(
        "LoadImageMask",
        load_mask,
        (
            Input("image", lambda site: site.files.input_names(), {"image_upload": True}),
            Input("channel", ("alpha", "red", "green", "blue")),
        ),
        ("MASK",),
        category="mask",
        display_name="Load Image (as Mask)",
        fingerprint=_print_of_picture,
        check=_check_picture,
        checked_input="image",
    ),
    NodeClass(
        "EmptyImage",
        make_empty,
        (
            Input("width", "INT", SIDE),
            Input("height", "INT", SIDE),
            Input("batch_size", "INT", BATCH),
            Input("color", "INT", {"default": 0, "min": 0, "max": 0xFFFFFF, "step": 1, "display": "color"}),
        ),
        ("IMAGE",),
    ),
    NodeClass("ImageInvert", invert, (Input("image", "IMAGE"),), ("IMAGE",), display_name="Invert Image"),
    NodeClass(
        "ImageScale",
        scale,
        (
            Input("image", "IMAGE"),
            Input("upscale_method", METHODS),
            Input("width", "INT", SIDE_OR_ZERO),
            Input("height", "INT", SIDE_OR_ZERO),
            Input("crop", ("disabled", "center")),
        ),
        ("IMAGE",),
        category="image/upscaling",
        display_name="Upscale Image",
    ),
    NodeClass(
        "ImageScaleBy",
        scale_by,
        (
            Input("image", "IMAGE"),
            Input("upscale_method", METHODS),
            Input("scale_by", "FLOAT", {"default": 1.0, "min": 0.01, "max": 8.0, "step": 0.01}),
        ),
        ("IMAGE",),
        category="image/upscaling",
        display_name="Upscale Image By",
    ),
    NodeClass(
        "ImageBlur",
        blur,
        (
            Input("image", "IMAGE", {}),
            Input("blur_radius", "INT", {"default": 1, "min": 1, "max": 31, "step": 1}),
            Input("sigma", "FLOAT", {"default": 1.0, "min": 0.1, "max": 10.0, "step": 0.1}),
        ),
        ("IMAGE",),
        category="image/postprocessing",
        display_name="Image Blur",
    ),
    NodeClass(
        "ImageCrop",
        crop,
        (
            Input("image", "IMAGE"),
            Input("width", "INT", SIDE),
            Input("height", "INT", SIDE),
            Input("x", "INT", {"default": 0, "min": 0, "max": MAX_SIDE_PX, "step": 1}),
            Input("y", "INT", {"default": 0, "min": 0, "max": MAX_SIDE_PX, "step": 1}),
        ),
        ("IMAGE",),
        category="image/transform",
        display_name="Image Crop",
    ),
    NodeClass("ImageBatch", join_batches, (Input("image1", "IMAGE"), Input("image2", "IMAGE")), ("IMAGE",), display_name="Batch Images"),
    NodeClass("RepeatImageBatch", repeat, (Input("image", "IMAGE"), Input("amount", "INT", BATCH)), ("IMAGE",), category="image/batch"),
    NodeClass(
        "GetImageSize",
        measure,
        (Input("image", "IMAGE"),),
        ("INT", "INT", "INT"),
        ("width", "height", "batch_size"),
        {"unique_id": "UNIQUE_ID"},
        display_name="Get Image Size",
        description="Tells the size of a batch of pictures.",
    ),
    NodeClass("MaskToImage", mask_to_image, (Input("mask", "MASK"),), ("IMAGE",), category="mask", display_name="Convert Mask to Image"),
    NodeClass(
        "ImageToMask",
        image_to_mask,
        (Input("image", "IMAGE"), Input("channel", ("red", "green", "blue", "alpha"))),
        ("MASK",),
        category="mask",
        display_name="Convert Image to Mask",
    ),
)
