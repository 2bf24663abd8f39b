"""The picture type that every engine shares."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# uint8, shape (height, width, 3), blue-green-red as OpenCV has it, full range 0..255, sRGB.
# RGB, float and NCHW live only inside one function, next to the model call.
BgrImage = npt.NDArray[np.uint8]
