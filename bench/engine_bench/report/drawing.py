"""One picture in two widths and two colour schemes, from one drawing.

matplotlib writes SVG with the light scheme's colours; inside the page they become CSS variables, which the reader's own
scheme sets. The PNG keeps the light ones. The narrow variant is for phones: another shape, not the same one smaller.
"""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from engine.errors import ConfigError

# Light and dark; told apart also by people who see few colours (blue, orange, green, purple of similar strength).
PALETTE: Final = {
    "ink": ("#1b2330", "#e7eaf0"),
    "muted": ("#586373", "#a5afbd"),
    "grid": ("#dbe0e7", "#353e4b"),
    "blue": ("#0b63a9", "#6fb5f3"),
    "orange": ("#b65a02", "#f4a85c"),
    "green": ("#0a7757", "#52d0a6"),
    "purple": ("#7a3f9e", "#c89ce9"),
    "red": ("#b4133f", "#ff8ea7"),
    "soft": ("#95a0b0", "#6a7585"),
    "paper": ("#ffffff", "#12161c"),
}
INK, MUTED, GRID, BLUE, ORANGE, GREEN, PURPLE, RED, SOFT, PAPER = (light for light, _ in PALETTE.values())
SERIES: Final = (BLUE, ORANGE, GREEN, PURPLE)
MARKERS: Final = ("o", "s", "^", "D")
_WIDE_IN, _NARROW_IN = 8.2, 4.1
_PNG_DPI = 160

# Draws into an empty figure; the flag says that there is a phone's width.
Paint = Callable[[Any, bool], None]


@dataclass(frozen=True, slots=True)
class Picture:
    """The same drawing as inline SVG for both widths, and as PNG bytes."""

    wide: str
    narrow: str
    png: bytes


def require_matplotlib() -> Any:
    """The package. Raises ConfigError where it is not installed."""
    try:
        import matplotlib
        import matplotlib.figure
    except ImportError:
        raise ConfigError(
            "the report's pictures need the package matplotlib; it is in the extra train: "
            "pip install 'personalization-engine[cpu,train,dev]'"
        ) from None
    return matplotlib


def draw(name: str, text: str, paint: Paint, height: float, narrow_height: float | None = None) -> Picture:
    """Both variants.

    Args:
        name: unlike that of any other picture of the page.
        text: what a reader hears who does not see it.
        paint: called once a variant.
        height, narrow_height: in inches, where 10 points are the text's size.
    """
    wide, png = _render(f"{name}-wide", text, paint, (_WIDE_IN, height), narrow=False)
    narrow, _ = _render(f"{name}-narrow", text, paint, (_NARROW_IN, narrow_height or height), narrow=True)
    return Picture(wide, narrow, png)


def _render(name: str, text: str, paint: Paint, inches: tuple[float, float], narrow: bool) -> tuple[str, bytes]:
    matplotlib = require_matplotlib()
    settings = {
        "svg.fonttype": "none",
        # Ids that are the same every time, and other ones in every picture of the page.
        "svg.hashsalt": name,
        "font.size": 10,
        "text.color": INK,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 10,
        "axes.titlelocation": "left",
        "axes.axisbelow": True,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "grid.color": GRID,
        "legend.frameon": False,
        "legend.fontsize": 9,
    }
    with matplotlib.rc_context(settings):
        figure = matplotlib.figure.Figure(figsize=inches, layout="constrained")
        paint(figure, narrow)
        vector, raster = io.StringIO(), io.BytesIO()
        figure.savefig(vector, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        if not narrow:
            # Everything is in its place by now, and finding it takes half of the time.
            figure.set_layout_engine("none")
            figure.savefig(raster, format="png", dpi=_PNG_DPI, facecolor=PAPER)
    return _inline(vector.getvalue(), text), raster.getvalue()


def _inline(svg: str, text: str) -> str:
    """matplotlib's file as an element of a page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Groups are numbered the same in every picture; nothing refers to them.
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    label = text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    svg = re.sub(r"<svg[^>]*>", f'<svg {box.group()} role="img" aria-label="{label}">', svg, count=1)
    for name, (light, _) in PALETTE.items():
        svg = svg.replace(light, f"var(--{name})")
    return svg
