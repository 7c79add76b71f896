"""Curves as inline SVG: axes with round ticks, one line a run, colours from the page's style sheet.

A curve of many points is drawn as the mean of each stretch with the band between its smallest and largest value, so
that a noisy loss can be read and nothing is hidden; where the values span a factor of 50 the axis is logarithmic.
"""

import math
from collections.abc import Sequence
from html import escape

COLOURS = 10
_WIDTH, _HEIGHT = 480, 290
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 12, 38
_STRETCHES = 120

Curve = Sequence[tuple[int, float]]


def chart(curves: Sequence[tuple[int, Curve]], title: str) -> str:
    """Returns an SVG of `curves`, each a run's number (its colour) and its `(step, value)` points.

    Points that are not finite break the line.
    """
    finite = [(step, value) for _, curve in curves for step, value in curve if math.isfinite(value)]
    if not finite:
        return ""
    steps, values = [step for step, _ in finite], [value for _, value in finite]
    logarithmic = min(values) > 0 and max(values) / min(values) > 50
    low, high = _padded(values, logarithmic)
    first, last = min(steps), max(steps)

    def x(step: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * ((step - first) / (last - first) if last > first else 0.5)

    def y(value: float) -> float:
        at = math.log10(value) if logarithmic else value
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * (at - low) / (high - low)

    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)} over steps">']
    y_ticks = log_ticks(low, high) if logarithmic else ticks(low, high)
    for tick in y_ticks:
        at = y(tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 7}" y="{at + 3.8:.1f}" text-anchor="end">{short(tick)}</text>')
    floor = _HEIGHT - _BOTTOM
    for tick in ticks(first, last, whole=True):
        parts.append(f'<path class="axis" d="M{x(tick):.1f} {floor}v4"/>')
        parts.append(f'<text class="tick" x="{x(tick):.1f}" y="{floor + 17}" text-anchor="middle">{short(tick)}</text>')
    parts.append(f'<path class="axis" d="M{_LEFT} {floor}H{_WIDTH - _RIGHT}"/>')
    parts.append(f'<text class="tick" x="{_WIDTH - _RIGHT}" y="{_HEIGHT - 4}" text-anchor="end">step</text>')
    if logarithmic:
        parts.append(f'<text class="tick" x="{_LEFT}" y="{_HEIGHT - 4}">logarithmic</text>')
    for number, curve in curves:
        parts += [_draw(piece, f"c{number % COLOURS}", number // COLOURS, x, y) for piece in _pieces(curve)]
    return "".join(parts) + "</svg>"


def ticks(low: float, high: float, whole: bool = False, count: int = 5) -> list[float]:
    """Returns about `count` round numbers between `low` and `high`.

    >>> ticks(0, 1), ticks(3, 27, whole=True)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [5, 10, 15, 20, 25])
    """
    if high <= low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = power * min((1, 2, 5, 10), key=lambda multiple: abs(math.log(multiple * power / raw)))
    step = max(1, round(step)) if whole else step
    numbers = [index * step for index in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]
    return numbers if whole else [round(number, 12) for number in numbers]


def log_ticks(low: float, high: float) -> list[float]:
    """Returns powers of ten between `10**low` and `10**high`, with 2 and 5 between them where those are few."""
    powers = range(math.floor(low), math.ceil(high) + 1)
    every = max(1, math.ceil((high - low) / 6))
    multiples = (1, 2, 5) if high - low < 2.5 else (1,)
    numbers = [multiple * 10.0**power for power in powers if power % every == 0 for multiple in multiples]
    return [number for number in numbers if low <= math.log10(number) <= high]


def short(number: float) -> str:
    """Returns a number as an axis shows it.

    >>> short(12000), short(0.25), short(3e-6), short(2500000)
    ('12k', '0.25', '3e-6', '2.5M')
    """
    size = abs(number)
    for bound, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if bound <= size < 1e12:
            return f"{number / (1e3 if unit == 'k' else bound):.4g}{unit}"
    text = f"{number:.4g}"
    return text.replace("e-0", "e-").replace("e+0", "e")


def _padded(values: Sequence[float], logarithmic: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if logarithmic:
        low, high = math.log10(low), math.log10(high)
    pad = 0.04 * (high - low) or 0.05 * abs(high) or 0.5
    return low - pad, high + pad


def _pieces(curve: Curve) -> list[list[tuple[float, float, float, float]]]:
    """Returns the stretches of `curve` between values that are not finite, as `(step, mean, low, high)` points."""
    pieces, piece = [], []
    for step, value in [*curve, (0, math.nan)]:
        if math.isfinite(value):
            piece.append((step, value))
        elif piece:
            pieces.append(piece)
            piece = []
    return [_stretches(piece) for piece in pieces]


def _stretches(points: Curve) -> list[tuple[float, float, float, float]]:
    if len(points) <= 2 * _STRETCHES:
        return [(step, value, value, value) for step, value in points]
    means = []
    for index in range(_STRETCHES):
        part = points[index * len(points) // _STRETCHES : (index + 1) * len(points) // _STRETCHES]
        values = [value for _, value in part]
        step = sum(step for step, _ in part) / len(part)
        means.append((step, math.fsum(values) / len(values), min(values), max(values)))
    return means


def _draw(piece: list[tuple[float, float, float, float]], colour: str, dash: int, x, y) -> str:
    line = "L".join(f"{x(step):.1f} {y(mean):.1f}" for step, mean, _, _ in piece)
    band = ""
    if any(low < high for _, _, low, high in piece):
        outline = [f"{x(step):.1f} {y(high):.1f}" for step, _, _, high in piece]
        outline += [f"{x(step):.1f} {y(low):.1f}" for step, _, low, _ in reversed(piece)]
        band = f'<path class="band {colour}" d="M{"L".join(outline)}Z"/>'
    dots, radius = "", 2.2 if len(piece) > 1 else 4
    if len(piece) <= 40:
        dots = "".join(
            f'<circle class="dot {colour}" cx="{x(step):.1f}" cy="{y(mean):.1f}" r="{radius}"/>'
            for step, mean, _, _ in piece
        )
    return f'{band}<path class="line {colour} dash{dash % 4}" d="M{line}"/>{dots}'
