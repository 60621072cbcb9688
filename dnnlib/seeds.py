"""Lists of seeds that may be long: ranges, not numbers, are kept."""

import bisect
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import overload

LARGEST_SEED = 2**32 - 1  # of numpy's RandomState


class Seeds(Sequence[int]):
    """Whole numbers in a given order, each once.

    Args:
        ranges: with step 1; numbers that occurred before are left out.
    """

    def __init__(self, ranges: Iterable[range]):
        self._ranges = tuple(_each_once(ranges))
        self._ends = list(itertools.accumulate(map(len, self._ranges)))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __iter__(self) -> Iterator[int]:
        return itertools.chain.from_iterable(self._ranges)

    def __contains__(self, value: object) -> bool:
        return any(value in part for part in self._ranges)

    def __eq__(self, other: object) -> bool:
        """Whether the other is a sequence of the same numbers in the same order."""
        if isinstance(other, Seeds):
            return self._ranges == other._ranges
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    def __repr__(self) -> str:
        parts = (str(p.start) if len(p) == 1 else f"{p.start}-{p[-1]}" for p in self._ranges)
        return ",".join(parts)

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        """A seed; or a slice, as `Seeds` where its step is 1."""
        positions = range(len(self))[index]  # raises IndexError
        if isinstance(positions, int):
            which = bisect.bisect_right(self._ends, positions)
            return self._ranges[which][positions - self._ends[which]]  # counted from the end
        if positions.step != 1:
            return [self[i] for i in positions]
        return Seeds(self._cut(positions.start, positions.stop))

    def _cut(self, start: int, stop: int) -> Iterator[range]:
        for part, end in zip(self._ranges, self._ends, strict=True):
            begin = end - len(part)
            yield part[max(start - begin, 0) : max(stop - begin, 0)]


def _each_once(ranges: Iterable[range]) -> Iterator[range]:
    """What each range adds to those before it; neighbors are joined."""
    joined: range | None = None
    for part in _without_repetitions(ranges):
        if joined is not None and joined.stop == part.start:
            joined = range(joined.start, part.stop)
            continue
        if joined is not None:
            yield joined
        joined = part
    if joined is not None:
        yield joined


def _without_repetitions(ranges: Iterable[range]) -> Iterator[range]:
    starts: list[int] = []  # of what is covered so far: disjoint intervals, in order
    stops: list[int] = []
    for part in ranges:
        first = bisect.bisect_left(stops, part.start)
        last = bisect.bisect_right(starts, part.stop)
        position = part.start
        for i in range(first, last):
            if position < starts[i]:
                yield range(position, min(starts[i], part.stop))
            position = max(position, stops[i])
        if position < part.stop:
            yield range(position, part.stop)
        if len(part):
            touched = slice(first, last)
            starts[touched], stops[touched] = (
                [min([part.start, *starts[touched]])],
                [max([part.stop, *stops[touched]])],
            )
