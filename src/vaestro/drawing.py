"""Draw simple figures with Pillow, at twice their size and then scaled down for smooth edges."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw as Canvas
    from PIL.ImageFont import FreeTypeFont, ImageFont

SCALE = 2
INK, PALE, RULE = "#222222", "#777777", "#e4e4e4"
SIZES = (13, 15, 17)


def picture(path: Path, width: int, height: int, draw: Callable[[Pen], None]) -> None:
    """Write a .png of width x height pixels.

    Args:
        path: file to write.
        width, height: size in pixels.
        draw: draws the picture with a pen.

    >>> picture(Path("line.png"), 80, 40, lambda pen: pen.line([(5, 20), (75, 20)], INK))
    >>> Path("line.png").stat().st_size > 0
    True
    """
    from PIL import Image, ImageDraw, ImageFont

    canvas = Image.new("RGB", (width * SCALE, height * SCALE), "white")
    draw(Pen(ImageDraw.Draw(canvas), {s: ImageFont.load_default(size=s * SCALE) for s in SIZES}))
    canvas.resize((width, height), Image.Resampling.LANCZOS).save(path, format="PNG")


@final
class Pen:
    """Draw on a picture, in pixel coordinates of the final picture.

    >>> picture(Path("dot.png"), 40, 40, lambda pen: pen.dot(20, 20, 5, INK))
    """

    def __init__(self, canvas: Canvas, fonts: dict[int, FreeTypeFont | ImageFont]) -> None:
        self.canvas, self.fonts = canvas, fonts

    def line(self, points: Sequence[tuple[float, float]], colour: str, width: float = 1) -> None:
        self.canvas.line(
            [(x * SCALE, y * SCALE) for x, y in points],
            fill=colour,
            width=round(width * SCALE),
            joint="curve",
        )

    def length(self, text: str, size: int) -> float:
        return float(self.fonts[size].getlength(text)) / SCALE

    def text(self, x: float, y: float, text: str, size: int, colour: str = INK) -> None:
        self.canvas.text((x * SCALE, y * SCALE), text, fill=colour, font=self.fonts[size])

    def fitting(self, text: str, size: int, width: float) -> str:
        """Return a text that fits a width: the middle of a longer one is replaced by dots."""
        keep = len(text)
        short = text
        while self.length(short, size) > width and keep > 4:
            keep -= 1
            tail = keep * 2 // 3
            short = text[: keep - tail] + "..." + text[len(text) - tail :]
        return short

    def box(self, left: float, top: float, right: float, bottom: float, colour: str) -> None:
        """Fill a rectangle."""
        self.canvas.rectangle(
            [left * SCALE, top * SCALE, right * SCALE, bottom * SCALE], fill=colour
        )

    def polygon(self, corners: Sequence[tuple[float, float]], colour: str) -> None:
        """Fill a polygon."""
        self.canvas.polygon([(x * SCALE, y * SCALE) for x, y in corners], fill=colour)

    def dot(self, x: float, y: float, radius: float, colour: str) -> None:
        """Fill a circle."""
        self.canvas.ellipse(
            [
                (x - radius) * SCALE,
                (y - radius) * SCALE,
                (x + radius) * SCALE,
                (y + radius) * SCALE,
            ],
            fill=colour,
        )
