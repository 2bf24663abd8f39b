"""Face detection with YuNet."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import onnxruntime as ort

from deployments.engines.faces.align import Points
from deployments.engines.images import BgrImage

INPUT_SIDE_PX = 640  # fixed in the model file
STRIDES = (8, 16, 32)
PADDED_SCALE = 0.4  # of the second look: a face that fills the picture becomes one the model has seen in training

Boxes = npt.NDArray[np.float32]  # (n, 4): x0, y0, x1, y1


@dataclass(frozen=True)
class Detection:
    """One face, in pixels of the picture it was found in."""

    box: npt.NDArray[np.float32]  # (4,): x0, y0, x1, y1; may reach over the picture's edge
    landmarks_5: Points  # (5, 2): eye on the picture's left, other eye, nose tip, mouth corner on the left, other corner
    score: float  # 0..1

    @property
    def area_px(self) -> float:
        """Area of the box."""
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))

    @property
    def centre(self) -> npt.NDArray[np.float32]:
        """Middle of the box, shape (2,)."""
        return np.asarray((self.box[:2] + self.box[2:]) / 2, np.float32)

    @property
    def side_px(self) -> float:
        """Longer side of the box."""
        return float(max(self.box[2] - self.box[0], self.box[3] - self.box[1]))


class FaceDetector:
    """Finds faces from about 1.5 % of the picture's longer side up to all of it, tilted by up to about 45 degrees.

    YuNet: Wu, Peng, Yu 2023, "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research.
    """

    def __init__(self, session: ort.InferenceSession, *, threshold: float, overlap: float, max_faces: int) -> None:
        """Take an opened model.

        Args:
            session: of ``yunet.onnx``.
            threshold: least score, 0..1.
            overlap: boxes whose intersection over union is above this are one face.
            max_faces: keep the largest this many.
        """
        self._session = session
        self._outputs = [output.name for output in session.get_outputs()]
        self._threshold = threshold
        self._overlap = overlap
        self._max_faces = max_faces

    def detect(self, image: BgrImage) -> list[Detection]:
        """Find faces, largest first; the list is empty when there is none."""
        return self._detect_at(image, 1.0) or self._detect_at(image, PADDED_SCALE)

    def _detect_at(self, image: BgrImage, fill: float) -> list[Detection]:
        scale = fill * INPUT_SIDE_PX / max(image.shape[:2])
        outputs = self._session.run(self._outputs, {"input": _letterbox(image, scale)})
        boxes, points, scores = _decode(dict(zip(self._outputs, outputs, strict=True)), self._threshold)
        sizes = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
        kept = cv2.dnn.NMSBoxes(sizes.tolist(), scores.tolist(), self._threshold, self._overlap) if len(boxes) else ()
        found = [Detection(boxes[i] / scale, points[i] / scale, float(scores[i])) for i in np.asarray(kept, np.intp).reshape(-1)]
        found.sort(key=lambda detection: -detection.area_px)
        return found[: self._max_faces]


def _letterbox(image: BgrImage, scale: float) -> npt.NDArray[np.float32]:
    """Fit the picture into the top left of a black square, as NCHW float BGR 0..255: what YuNet was trained on."""
    height, width = (max(1, min(INPUT_SIDE_PX, round(side * scale))) for side in image.shape[:2])
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    blob = np.zeros((1, 3, INPUT_SIDE_PX, INPUT_SIDE_PX), np.float32)
    blob[0, :, :height, :width] = small.transpose(2, 0, 1)
    return blob


def _decode(outputs: dict[str, npt.NDArray[np.float32]], threshold: float) -> tuple[Boxes, Points, npt.NDArray[np.float32]]:
    """Turn the three feature levels into (boxes, points, scores) above the threshold, in pixels of the model's input."""
    levels = [_decode_level(outputs, stride, threshold) for stride in STRIDES]
    boxes, points, scores = (np.concatenate(parts) for parts in zip(*levels, strict=True))
    return boxes, points, scores


def _decode_level(
    outputs: dict[str, npt.NDArray[np.float32]], stride: int, threshold: float
) -> tuple[Boxes, Points, npt.NDArray[np.float32]]:
    classes = np.clip(outputs[f"cls_{stride}"][0, :, 0], 0, 1)
    objects = np.clip(outputs[f"obj_{stride}"][0, :, 0], 0, 1)
    scores = np.sqrt(classes * objects)
    cells = np.nonzero(scores > threshold)[0]
    columns = INPUT_SIDE_PX // stride
    corner = np.stack([cells % columns, cells // columns], axis=1).astype(np.float32)
    offsets = outputs[f"bbox_{stride}"][0][cells]
    centres = (corner + offsets[:, :2]) * stride
    halves = np.exp(offsets[:, 2:]) * (stride / 2)
    points = (outputs[f"kps_{stride}"][0][cells].reshape(-1, 5, 2) + corner[:, None]) * stride
    return np.concatenate([centres - halves, centres + halves], axis=1), points, scores[cells]
