import numpy as np
import pytest
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange

from deployments.engines.media.color import BT709, SMPTE170M, FrameConverter, VideoColor


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


@pytest.mark.parametrize("matrix", [BT709, SMPTE170M, 5, 7, 9])
def test_a_trip_through_yuv_keeps_colours(picture, matrix):
    image = picture(640, 360)
    converter = FrameConverter(VideoColor(matrix, ColorRange.MPEG))

    back = converter.to_bgr(converter.from_bgr(image, (640, 360)))

    assert psnr(image, back) >= 45
    assert np.abs((back.astype(float) - image).mean((0, 1))).max() < 0.3


def test_to_bgr_reads_full_range(picture):
    image = picture(64, 48)
    blue, green, red = (image[..., i].astype(float) for i in range(3))
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue  # BT.709
    planes = [luma, (blue - luma) / 1.8556 + 128, (red - luma) / 1.5748 + 128]
    frame = VideoFrame.from_ndarray(np.clip(np.rint(np.stack(planes)), 0, 255).astype(np.uint8), format="yuv444p")

    back = FrameConverter(VideoColor(BT709, ColorRange.JPEG)).to_bgr(frame)

    assert psnr(image, back) >= 45
    assert np.abs((back.astype(float) - image).mean((0, 1))).max() < 0.3


def test_from_bgr_uses_the_matrix():
    green = np.full((64, 64, 3), (60, 200, 40), np.uint8)

    luma = {m: FrameConverter(VideoColor(m, ColorRange.MPEG)).from_bgr(green, (64, 64)).to_ndarray()[0, 0] for m in (BT709, SMPTE170M)}

    # 16 + 219/255 of Kr R + Kg G + Kb B, with BT.709's and BT.601's coefficients.
    assert luma == {
        BT709: pytest.approx(16 + 219 / 255 * (0.2126 * 40 + 0.7152 * 200 + 0.0722 * 60), abs=1),
        SMPTE170M: pytest.approx(16 + 219 / 255 * (0.299 * 40 + 0.587 * 200 + 0.114 * 60), abs=1),
    }


def test_from_bgr_scales_in_the_same_step(picture):
    frame = FrameConverter(VideoColor(BT709, ColorRange.MPEG)).from_bgr(picture(), (320, 180))
    assert (frame.width, frame.height, frame.format.name) == (320, 180, "yuv420p")


@pytest.mark.parametrize(
    ("pixels", "height", "expected"),
    [
        ("yuv420p", 720, VideoColor(BT709, ColorRange.MPEG, 2, 2)),
        ("yuv420p", 576, VideoColor(SMPTE170M, ColorRange.MPEG, 2, 2)),
        ("yuvj420p", 576, VideoColor(SMPTE170M, ColorRange.JPEG, 2, 2)),
        ("yuv420p10le", 1080, VideoColor(BT709, ColorRange.MPEG, 2, 2)),
        ("rgb24", 480, VideoColor(SMPTE170M, ColorRange.MPEG, 2, 2)),
    ],
)
def test_video_color_settles_what_tags_leave_open(pixels, height, expected):
    assert VideoColor.of(VideoFrame(64, height, pixels)) == expected


def test_video_color_keeps_tags():
    frame = VideoFrame(64, 64, "yuv420p")
    frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc = 9, 2, 9, 14
    assert VideoColor.of(frame) == VideoColor(9, 2, 9, 14)
