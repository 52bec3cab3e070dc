# SPDX-License-Identifier: Apache-2.0
"""Where the face is in pictures of footage, and the square around it that the networks see.

Two finders: MediaPipe's face landmarker for people (the package `mediapipe` and a `face_landmarker.task` are needed),
and the landmark finder of our own renderer, which knows drawn characters and looks at squares of the picture.
"""

from __future__ import annotations

import atexit
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import numpy as np
import torch

from flowact_ros.engine.portrait import EYE_DISTANCE, LEAST_CERTAINTY
from flowact_ros.models.checkpoint import load_weights, weights_dir
from flowact_ros.models.codec.appearance import PARTS
from flowact_ros.models.codec.renderer import Renderer
from flowact_ros.models.config import ModelConfig

APART = 0.184  # of a square's side: how far apart the eyes of drawn characters are, and where their middle is
MIDDLE = (0.5, 0.441)
SMALLEST = 160  # [px] a smaller square would be a blur at the networks' size
_EYE_CORNERS = ((33, 133), (362, 263))  # MediaPipe's mesh: outer and inner corner of each eye
_MOUTH = (13, 14, 61, 291)  # the lips' middles and corners


class Square(NamedTuple):
    """A square of a picture [px]."""

    left: int
    top: int
    side: int

    def cut(self, picture: np.ndarray, size: int) -> np.ndarray:
        """What it shows of a picture uint8 `[H, W, 3]`, as uint8 `[size, size, 3]`."""
        part = picture[self.top : self.top + self.side, self.left : self.left + self.side]
        how = cv2.INTER_AREA if self.side > size else cv2.INTER_CUBIC
        return np.ascontiguousarray(cv2.resize(part, (size, size), interpolation=how))


class Finder(Protocol):
    """Finds one face a picture."""

    name: str

    def find(self, pictures: list[np.ndarray]) -> list[np.ndarray | None]:
        """Places (x, y) of mouth, left and right eye in pixels `[3, 2]` of each picture; None: there is no face."""
        ...


class MediaPipeFinder:
    """Photographed and filmed faces. Raises ValueError for a file that is no model of a face landmarker."""

    name = "mediapipe"

    def __init__(self, model: Path) -> None:
        import mediapipe  # an optional package; ModuleNotFoundError is told by the command
        from mediapipe.tasks.python import BaseOptions, vision

        if not model.is_file():
            raise ValueError(f"--landmarker {model} does not exist; MediaPipe's face_landmarker.task is needed")
        try:
            self._landmarker = vision.FaceLandmarker.create_from_options(
                vision.FaceLandmarkerOptions(base_options=BaseOptions(model_asset_path=str(model)), num_faces=1)
            )
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"--landmarker {model} is no model of MediaPipe's face landmarker ({error})") from None
        atexit.register(self._landmarker.close)  # its own destructor comes when half of Python is gone
        self._image = mediapipe.Image, mediapipe.ImageFormat.SRGB

    def find(self, pictures: list[np.ndarray]) -> list[np.ndarray | None]:
        make, kind = self._image
        return [
            _of_mesh(self._landmarker.detect(make(image_format=kind, data=picture)).face_landmarks, picture.shape)
            for picture in map(np.ascontiguousarray, pictures)
        ]


def _of_mesh(faces: list, shape: tuple[int, ...]) -> np.ndarray | None:
    if not faces:
        return None
    mesh = np.array([(point.x * shape[1], point.y * shape[0]) for point in faces[0]], np.float32)
    eyes = sorted((mesh[list(corners)].mean(0) for corners in _EYE_CORNERS), key=lambda eye: eye[0])
    return np.stack([mesh[list(_MOUTH)].mean(0), *eyes])


class RendererFinder:
    """Drawn characters, by the landmarks of the preset's shipped renderer. Raises CheckpointError without weights."""

    name = "renderer"

    def __init__(self, config: ModelConfig) -> None:
        self._net = Renderer(config.renderer).eval()
        if config.name != "debug":
            path = weights_dir() / config.name / "renderer.safetensors"
            load_weights(path, self._net, kind="renderer", config=config.renderer)
        self.size = config.renderer.size

    def find(self, pictures: list[np.ndarray]) -> list[np.ndarray | None]:
        """Looks at the middle square, at those to its sides, and again at the square that the face then asks for."""
        return [self._find(picture) for picture in pictures]

    def _find(self, picture: np.ndarray) -> np.ndarray | None:
        height, width = picture.shape[:2]
        side = min(height, width)
        for left, top in dict.fromkeys(
            ((width - side) // 2 + dx, (height - side) // 2 + dy)
            for dx, dy in _shifts(width - side, height - side)
        ):
            found = self._look(picture, Square(left, top, side))
            if found is None:
                continue
            nearer = square_around(found[None], height, width)
            again = self._look(picture, nearer) if nearer is not None and nearer.side < 0.8 * side else None
            return found if again is None else again
        return None

    @torch.inference_mode()
    def _look(self, picture: np.ndarray, square: Square) -> np.ndarray | None:
        seen = torch.from_numpy(square.cut(picture, self.size)).permute(2, 0, 1)[None].float() / 127.5 - 1
        _, landmarks = self._net.encoder(seen, self._net.mouth, self._net.eyes)
        sure = all(c >= LEAST_CERTAINTY[name] for c, name in zip(landmarks.certainty[0].tolist(), PARTS))
        places = landmarks.places[0].numpy() / self.size
        if not (sure and is_face(places)):
            return None
        return (places * square.side + (square.left, square.top)).astype(np.float32)


def _shifts(across: int, down: int) -> list[tuple[int, int]]:
    return [(0, 0), *((dx * across // 4, dy * down // 4) for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1)))]


def is_face(places: np.ndarray) -> bool:
    """Whether mouth, left and right eye `[3, 2]`, in sides of the square, lie as in a face to the front."""
    mouth, left, right = places
    apart = float(right[0] - left[0])
    below = float(mouth[1] - (left[1] + right[1]) / 2)
    return EYE_DISTANCE[0] <= apart <= EYE_DISTANCE[1] and 0.3 * apart <= below <= 2.0 * apart


def square_around(places: np.ndarray, height: int, width: int) -> Square | None:
    """The square in which a shot's face `[T, 3, 2]` is as large as, and where, drawn characters have it.

    It lies inside the picture: a bust that is cut off is seen nearer. None: the face is too small.
    """
    apart = float(np.median(np.linalg.norm(places[:, 2] - places[:, 1], axis=1)))
    x, y = np.median(places[:, 1:].mean(1), axis=0)
    side = min(round(apart / APART), height, width)
    if side < SMALLEST:
        return None
    left = min(max(round(float(x) - MIDDLE[0] * side), 0), width - side)
    top = min(max(round(float(y) - MIDDLE[1] * side), 0), height - side)
    return Square(left, top, side)


@dataclass(frozen=True)
class Track:
    """Faces of a shot's frames, in pixels of its square; frames without a face have their neighbours' places."""

    places: np.ndarray
    found: float  # share of the frames


def track(found: list[np.ndarray | None]) -> Track | None:
    """Places `[T, 3, 2]` of every frame, gaps filled in a straight line; None: there is no face at all."""
    known = [k for k, places in enumerate(found) if places is not None]
    if not known:
        return None
    flat = np.stack([found[k] for k in known]).reshape(len(known), -1)
    every = np.arange(len(found))
    filled = np.stack([np.interp(every, known, column) for column in flat.T], 1)
    return Track(filled.reshape(-1, len(PARTS), 2).astype(np.float32), len(known) / len(found))
