"""Numbers and classes as the page writes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from unet.overlay import unpainted_classes


def percent(share: float) -> str:
    """Write a share in percent: "30.6 %", "–" for none.

    Never "0.0 %" for something, nor "100.0 %" for not quite all.
    """
    if share != share:
        return "–"
    if 0 < share < 0.0005:
        return "< 0.1 %"
    if 0.9995 <= share < 1:
        return "> 99.9 %"
    return f"{100 * share:.1f} %"


def seconds(duration: float) -> str:
    """Two digits that mean something: "0.07 s", "1.4 s", "38 s"."""
    return f"{duration:.2f} s" if duration < 0.995 else f"{duration:.1f} s" if duration < 9.95 else f"{duration:.0f} s"


def parameters(count: int) -> str:
    """Number of parameters: "0.66 M", "31.0 M"."""
    return f"{count / 1e6:.2f} M" if count < 10e6 else f"{count / 1e6:.1f} M"


def classes(names: Sequence[str], palette: np.ndarray) -> list[dict[str, Any]]:
    """Index, name, colour and painted, for each class."""
    unpainted = unpainted_classes(names)
    return [
        {"index": i, "name": name, "color": color, "painted": i not in unpainted}
        for i, (name, color) in enumerate(zip(names, palette.tolist(), strict=True))
    ]
