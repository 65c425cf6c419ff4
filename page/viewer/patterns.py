"""Patterns for classes whose colours are easily confused."""

from __future__ import annotations

import numpy as np

from unet.colors import srgb_to_linear

# What each kind of colour blindness sees, in linear RGB (Machado, Oliveira, Fernandes 2009, severity 1).
_COLOR_VISION = np.array(
    [
        np.eye(3),
        [(0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)],
        [(0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)],
        [(1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)],
    ]
)
_LINEAR_TO_XYZ = np.array(
    [(0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041)]
)
_ALIKE = 20  # CIE76 distance in Lab below which two colours lying apart are easily mistaken for one


def perceived_distances(palette: np.ndarray) -> np.ndarray:
    """Distance of two colours for the eyes that tell them apart worst.

    palette: uint8 (k, 3). Returns float64 (k, k), CIE76.
    """
    linear = srgb_to_linear(palette / 255)
    t = (_COLOR_VISION @ linear.T).clip(0, 1).transpose(0, 2, 1) @ _LINEAR_TO_XYZ.T / _LINEAR_TO_XYZ.sum(axis=1)
    f = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = f[..., 0], f[..., 1], f[..., 2]
    lab = np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=2)
    return np.linalg.norm(lab[:, :, None] - lab[:, None], axis=3).min(axis=0)


def pattern_numbers(palette: np.ndarray) -> list[int]:
    """A pattern for each class of a palette uint8 (k, 3).

    As few as do, and never the same for two classes that somebody's eyes take for one.
    """
    alike = perceived_distances(palette) < _ALIKE
    numbers: list[int] = []
    for i in range(len(palette)):
        taken = {number for j, number in enumerate(numbers) if alike[i, j]}
        numbers.append(next(n for n in range(len(palette)) if n not in taken))
    return numbers
