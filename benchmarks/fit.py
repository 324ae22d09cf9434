"""How a cost grows with the size of the cluster."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

SMALLEST = 1e-6
"""What counts as nothing, so that a cost of 0 has a logarithm."""


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The k of the best fit cost = c * size ** k: least squares of the logarithms.

    1 is linear growth, 0 none. Raises ValueError unless there are two different sizes, a cost each.
    """
    if len(sizes) != len(costs) or len(set(sizes)) < 2:
        raise ValueError("a fit takes a cost for each of two different sizes or more")
    xs = [math.log(size) for size in sizes]
    ys = [math.log(max(cost, SMALLEST)) for cost in costs]
    middle_x, middle_y = statistics.fmean(xs), statistics.fmean(ys)
    spread = sum((x - middle_x) ** 2 for x in xs)
    return sum((x - middle_x) * (y - middle_y) for x, y in zip(xs, ys, strict=True)) / spread
