"""Printed numbers as exact intervals: one stands for everything within half a unit of its last digit."""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction


@dataclass(frozen=True)
class Interval:
    """Everything from low to high, and the value that the printed digits say, exactly (low <= value <= high).

    Sums, differences and quotients are those of intervals whose numbers move apart from each other. A formula must
    therefore name each printed number once: (M - B) / B names B twice and comes out too wide, M / B - 1 is exact.
    """

    low: Fraction
    value: Fraction
    high: Fraction

    def __post_init__(self) -> None:
        assert self.low <= self.value <= self.high, self

    def __add__(self, other: "Interval | Fraction | int") -> "Interval":
        other = interval(other)
        return Interval(self.low + other.low, self.value + other.value, self.high + other.high)

    def __neg__(self) -> "Interval":
        return Interval(-self.high, -self.value, -self.low)

    def __sub__(self, other: "Interval | Fraction | int") -> "Interval":
        return self + -interval(other)

    def __mul__(self, factor: Fraction | int) -> "Interval":
        """By an exact number."""
        low, high = sorted((self.low * factor, self.high * factor))
        return Interval(low, self.value * factor, high)

    def __truediv__(self, other: "Interval | Fraction | int") -> "Interval":
        """Raises ValueError for a divisor whose interval reaches 0: the quotient has no bounds."""
        other = interval(other)
        if other.low <= 0 <= other.high:
            raise ValueError(f"divided by {shown(other.value, 4)}, which may be 0 within its rounding.")
        ends = [a / b for a in (self.low, self.high) for b in (other.low, other.high)]
        return Interval(min(ends), self.value / other.value, max(ends))

    def __abs__(self) -> "Interval":
        if self.low >= 0:
            return self
        return -self if self.high <= 0 else Interval(Fraction(0), abs(self.value), max(-self.low, self.high))

    def meets(self, other: "Interval") -> bool:
        """Whether some number is in both."""
        return self.low <= other.high and other.low <= self.high


def interval(number: Interval | Fraction | int) -> Interval:
    """An exact number as the interval of nothing else."""
    return number if isinstance(number, Interval) else Interval(*[Fraction(number)] * 3)


def printed(text: str) -> Interval:
    """A printed number: "44.50" is 44.495 to 44.505. Raises ValueError for what is no number."""
    value = Fraction(text)
    half = Fraction(1, 2 * 10 ** decimals(text))
    return Interval(value - half, value, value + half)


def exact(text: str) -> Interval:
    """A printed number that was not rounded: a count, a rank."""
    return interval(Fraction(text))


def decimals(text: str) -> int:
    """How many digits stand behind the point."""
    return len(text.partition(".")[2])


def mean(numbers: Iterable[Interval]) -> Interval:
    numbers = list(numbers)
    return sum(numbers[1:], numbers[0]) * Fraction(1, len(numbers))


def shown(number: Fraction, digits: int) -> str:
    """Rounded to so many decimals, half to even, without passing through a binary number."""
    whole = round(number * 10**digits)
    sign, text = "-" if whole < 0 else "", str(abs(whole)).rjust(digits + 1, "0")
    return f"{sign}{text[:-digits]}.{text[-digits:]}" if digits else f"{sign}{text}"
