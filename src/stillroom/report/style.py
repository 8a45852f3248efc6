"""The look of plots, for light and dark pages. Colours of Okabe and Ito, which colour-blind readers can tell
apart."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_DPI = 144


@dataclass(frozen=True)
class Theme:
    """Colours of a page; `on_hue` is the ink on a strong colour."""

    name: str
    ground: str
    ink: str
    faint: str
    teacher: str
    good: str
    bad: str
    open: str
    on_hue: str
    students: tuple[str, ...]

    def student(self, place: int) -> str:
        """The colour of the student at a place in the summary."""
        return self.students[place % len(self.students)]

    def verdict(self, verdict: str) -> str:
        """Green, red or amber."""
        return {"PASS": self.good, "FAIL": self.bad}.get(verdict, self.open)


LIGHT = Theme(
    name="light",
    ground="#ffffff",
    ink="#1c2127",
    faint="#c3c9d1",
    teacher="#5b6470",
    good="#00785a",
    bad="#b83a00",
    open="#9a6a00",
    on_hue="#ffffff",
    students=("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"),
)
DARK = Theme(
    name="dark",
    ground="#171b21",
    ink="#e6e9ed",
    faint="#465060",
    teacher="#a8b1bd",
    good="#3ccf9c",
    bad="#ff8a5c",
    open="#f0b93a",
    on_hue="#0b0e12",
    students=("#56b4e9", "#ff8a3d", "#3ccf9c", "#e39cc5", "#f0b93a", "#9fd4f5"),
)


@contextmanager
def figure(theme: Theme, width: float, height: float, **grid: Any) -> Iterator[tuple["Figure", Any]]:
    """Yield a figure of inches and its axes (an array where `grid` asks for several)."""
    from matplotlib import rc_context, rcdefaults, rcParams
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    look: Any = {
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.edgecolor": theme.faint,
        "axes.facecolor": theme.ground,
        "axes.labelcolor": theme.ink,
        "axes.titlecolor": theme.ink,
        "axes.axisbelow": True,
        "text.color": theme.ink,
        "xtick.color": theme.ink,
        "ytick.color": theme.ink,
        "grid.color": theme.faint,
        "grid.alpha": 0.5,
        "legend.frameon": False,
        "legend.fontsize": 9,
        "figure.facecolor": theme.ground,
        "text.parse_math": False,
    }
    with rc_context():
        rcdefaults()
        rcParams.update(look)
        drawn = Figure(figsize=(width, height), dpi=_DPI, layout="constrained")
        FigureCanvasAgg(drawn)
        yield drawn, drawn.subplots(**grid)


def png(drawn: "Figure") -> bytes:
    """The figure as PNG, with neither a date nor a version in it: the same figure gives the same bytes.

    A label in a script that the built-in font lacks is drawn as boxes; tables show it as it is.
    """
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        drawn.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def rgb(colour: str) -> NDArray[np.float64]:
    """A colour of the theme as three shares."""
    return np.array([int(colour[at : at + 2], 16) for at in (1, 3, 5)]) / 255
