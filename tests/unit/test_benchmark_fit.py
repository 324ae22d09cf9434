"""The exponent by which the benchmark of large clusters says how a cost grows."""

from __future__ import annotations

import pytest

from benchmarks.fit import exponent
from benchmarks.scale import Figures, growth

SIZES = [10, 100, 300, 1000]


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0, 2.0])
def test_a_pure_power_is_found(power: float) -> None:
    assert exponent(SIZES, [7 * size**power for size in SIZES]) == pytest.approx(power)


def test_a_fixed_cost_beside_a_linear_one_grows_slower_than_linearly() -> None:
    found = exponent(SIZES, [100 + size for size in SIZES])
    assert 0 < found < 1


def test_least_squares_weigh_every_size_alike() -> None:
    # Worked out by hand: logarithms to base 10 at 0, 1, 2 and 0, 2, 1; the slope is 1/2.
    assert exponent([1, 10, 100], [1, 100, 10]) == pytest.approx(0.5)


def test_a_cost_of_nothing_has_an_exponent_too() -> None:
    assert exponent(SIZES, [0.0, 0.0, 0.0, 0.0]) == 0.0


@pytest.mark.parametrize(("sizes", "costs"), [([10], [1.0]), ([10, 10], [1.0, 2.0]), ([1, 2], [1])])
def test_there_is_no_fit_without_two_sizes(sizes: list[int], costs: list[float]) -> None:
    with pytest.raises(ValueError, match="two different sizes"):
        exponent(sizes, costs)


def test_every_cost_has_its_exponent() -> None:
    found = [Figures("polled", size, 30 * size, rss_mb=size, known_s=size**2) for size in SIZES]
    exponents = dict(growth(found))
    assert exponents["memory (RSS)"] == pytest.approx(1)
    assert exponents["start -> all known"] == pytest.approx(2)
    assert len(exponents) == 16
