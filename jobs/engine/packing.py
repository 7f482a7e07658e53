"""Things of different sizes put into full groups, and dealt evenly."""

import heapq
import math
from bisect import bisect_left, insort

import numpy as np
from numpy.typing import NDArray


def together(sizes: NDArray[np.int64], most: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Put things into groups of a size at most, or of a multiple where one is larger; by best fit, the largest first.

    Returns:
        The group of each, and the size of each group; what has no size is dealt to the groups in turn.
    """
    group = np.zeros(len(sizes), dtype=np.int64)
    filled: list[int] = []
    room: list[tuple[int, int]] = []
    for one in np.argsort(-sizes, kind="stable").tolist():
        size = int(sizes[one])
        if size == 0:
            group[one] = one % max(1, len(filled))
            continue
        at = bisect_left(room, (size, -1))
        if at < len(room):
            left, chosen = room.pop(at)
        else:
            left, chosen = most * math.ceil(size / most), len(filled)
            filled.append(0)
        group[one] = chosen
        filled[chosen] += size
        if left > size:
            insort(room, (left - size, chosen))
    return group, np.array(filled or [0], dtype=np.int64)


def evenly(sizes: NDArray[np.int64], tasks: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Deal things to so many tasks, the largest first, each to the one that has least.

    Returns:
        The task of each, and what each task has, the most first.
    """
    loads = [(0, number) for number in range(tasks)]
    chosen = np.zeros(len(sizes), dtype=np.int64)
    for one in np.argsort(-sizes, kind="stable").tolist():
        load, number = loads[0]
        chosen[one] = number
        heapq.heapreplace(loads, (load + int(sizes[one]), number))
    order = [number for _, number in sorted(loads, reverse=True)]
    place = np.empty(tasks, dtype=np.int64)
    place[order] = np.arange(tasks)
    return place[chosen], np.array([load for load, _ in sorted(loads, reverse=True)])
