"""Numbers with as many digits as they are worth."""


def milliseconds(value: float | None) -> str:
    """Three digits or so: 0.043, 0.86, 12.3, 140."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if value < 0.1:
        return f"{value:.3f}"
    if value < 10:
        return f"{value:.2f}"
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def amount(value: float | None) -> str:
    """Whole where it is large: 1.9e-09, 0.977, 1.95, 26.2, 21,400."""
    if value is None:
        return "–"
    if value == int(value):
        return f"{int(value):,}"
    if abs(value) < 1:
        return f"{value:.3f}" if abs(value) >= 0.001 else f"{value:.2g}"
    if abs(value) < 10:
        return f"{value:.2f}"
    return f"{value:.1f}" if abs(value) < 100 else f"{value:,.0f}"


def recall(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
