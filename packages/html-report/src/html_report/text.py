"""Figures and times as people read them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import datetime, timezone

NOTHING = "–"
"""Stands where there is no figure."""

# Controls, and marks, overrides and isolates of direction: they would show a text in another order than it stands in.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
_FRACTION = re.compile(r"\.\d+")
_NAMES = {"cer": "CER", "wer": "WER", "anls": "ANLS", "exact": "Exact match"}


def visible(text: str) -> str:
    """Write what no page should obey (controls, overrides of direction) as escapes; the rest stays as it came."""
    return _INVISIBLE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def metric_name(name: str) -> str:
    """Spell a metric's name: abbreviations in capitals, everything else as it came."""
    return _NAMES.get(name, name)


def figure(value: float | None) -> str:
    """Write a metric's value with three decimals, or four digits where it is large."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:.3f}" if abs(value) < 100 else f"{value:.4g}"  # noqa: PLR2004 - three decimals stop mattering


def spread(values: Sequence[float], value: float) -> str:
    """Write a figure of several with so many decimals, 3 to 6, that what they lie apart shows in two digits."""
    apart = max(values) - min(values)
    decimals = min(6, max(3, 1 - math.floor(math.log10(apart)))) if apart > 0 else 3
    return f"{value:.{decimals}f}" if max(map(abs, values)) < 100 else f"{value:.6g}"  # noqa: PLR2004 - as in `figure`


def seconds(value: float | None) -> str:
    """Write seconds in the unit that suits them: µs, ms, s, min or h."""
    if value is None or not math.isfinite(value):
        return NOTHING
    for limit, factor, unit in ((1e-3, 1e6, "µs"), (1.0, 1e3, "ms"), (120.0, 1.0, "s")):
        if value < limit:
            return f"{_digits(value * factor)} {unit}"
    minutes, rest = divmod(round(value), 60)
    if minutes < 120:  # noqa: PLR2004 - up to two hours in minutes
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def size(value: float | None) -> str:
    """Write bytes in MiB or GiB."""
    if value is None or not math.isfinite(value):
        return NOTHING
    mebibytes = value / 2**20
    return f"{_digits(mebibytes)} MiB" if mebibytes < 1024 else f"{_digits(mebibytes / 1024)} GiB"  # noqa: PLR2004


def rate(value: float | None) -> str:
    """Write items per second."""
    return NOTHING if value is None or not math.isfinite(value) else f"{_digits(value)}/s"


def moment(value: str | None) -> str:
    """Write an ISO 8601 time to the second, in UTC; what is no time stays as it came."""
    parsed = parse_moment(value)
    return parsed.strftime("%Y-%m-%d %H:%M:%S UTC") if parsed else (value or NOTHING)


def duration(started: str | None, finished: str | None) -> str:
    """Write the time between two ISO 8601 times."""
    begin, end = parse_moment(started), parse_moment(finished)
    return seconds((end - begin).total_seconds()) if begin and end else NOTHING


def parse_moment(value: str | None) -> datetime | None:
    """Read an ISO 8601 time, taken as UTC where it names no zone; None where it is no time."""
    # Python 3.10 knows neither the Z nor fractions of other than three or six digits.
    plain = _FRACTION.sub(lambda found: found[0][:7].ljust(7, "0"), (value or "").replace("Z", "+00:00"))
    try:
        parsed = datetime.fromisoformat(plain)
    except ValueError:
        return None
    return parsed.astimezone(timezone.utc) if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)


def _digits(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0:
        return "0"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 3)}f}"
