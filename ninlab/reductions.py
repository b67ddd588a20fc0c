"""How much scratch does a sum on a GPU take?

ATen computes sums, means, norms and the like with one kernel. Where the work of one thread
would be long, several thread blocks share each output: they leave partial results in one block
of scratch and count in another, the semaphores, who of them is the last. Both are allocated
after the result and freed when the call returns. Their sizes depend on the order of the reduced
tensor in memory and on the device, and never on its values. All sizes are in bytes.

Source: ``setReduceConfig``, ``ReduceConfig.global_memory_size`` and ``semaphore_size`` in
ATen/native/cuda/Reduce.cuh of torch 2.15, as they come with its wheel; the dimensions are put
in order as TensorIterator does it (``reorder_dimensions``, ``coalesce_dimensions`` and
``SplitUntil32Bit`` in aten/src/ATen/TensorIterator.cpp).

Known limits. 512 threads a thread block, as for all types but complex doubles. The result is
a new tensor, contiguous in the order of what is left of the shape. Of a 16-bit tensor beyond
2 GiB the results of the parts are kept in one more block, which is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ninlab.units import Shape

_THREADS = 512  # in a thread block, at most
_WARP = 32
_SHARED_FROM = 256  # values a thread: from here on thread blocks share an output
_LEAST = 16  # ... but so few that this many are left for each thread
_SEMAPHORE_BYTES = 4
_REACH = 2**31 - 1  # what the kernel's indices reach, in elements and in bytes


class ReductionScratch(NamedTuple):
    """What one launch of the kernel allocates, in this order."""

    partial_bytes: int
    semaphore_bytes: int


class _Loop(NamedTuple):
    """One of the loops over a tensor; strides are in bytes, the result's is 0 where it reduces."""

    size: int
    stride: int
    result_stride: int


@dataclass(frozen=True, slots=True)
class Reduction:
    """One reduction of one tensor. strides and offset count elements, as torch's do.

    accumulator_bytes is the size of what is carried from value to value: 4 for a sum of floats.
    How many values of a row a thread reads at once changes nothing where there are many.
    """

    shape: Shape
    strides: tuple[int, ...]
    reduced: tuple[int, ...]  # which dimensions, counted from 0
    element_bytes: int
    accumulator_bytes: int
    offset: int = 0  # of the first element in its storage

    def scratch(
        self, multiprocessors: int, threads_per_multiprocessor: int
    ) -> tuple[ReductionScratch, ...]:
        """What the launches that take scratch allocate on such a device: () where none does.

        More than one is given only for a tensor beyond 2 GiB, which is reduced part by part. The
        blocks of a launch are freed before the next one.
        """
        if not self.shape or 0 in self.shape:
            return ()
        launches = (
            self._launch(loops, offset, multiprocessors, threads_per_multiprocessor)
            for loops, offset in _parts(self._loops(), self.offset * self.element_bytes)
        )
        return tuple(scratch for scratch in launches if scratch is not None)

    def _loops(self) -> list[_Loop]:
        """The loops over the tensor, the innermost first; those that reduce come first of all."""
        loops = []
        beside = self.element_bytes  # the result's type may be larger: the order is the same
        for dimension in reversed(range(len(self.shape))):
            size, stride = self.shape[dimension], self.strides[dimension] * self.element_bytes
            is_reduced = dimension in self.reduced
            loops.append(_Loop(size, stride, 0 if is_reduced else beside))
            if not is_reduced:
                beside *= size
        return _coalesced(_in_order(loops))

    def _launch(
        self,
        loops: Sequence[_Loop],
        offset: int,
        multiprocessors: int,
        threads_per_multiprocessor: int,
    ) -> ReductionScratch | None:
        """The scratch of one launch over those loops, None where each output has one block."""
        reducing = sum(loop.result_stride == 0 for loop in loops)
        outputs = math.prod(loop.size for loop in loops[reducing:])
        inputs = math.prod(loop.size for loop in loops[:reducing])  # of one output
        reduces_rows = reducing == len(loops) or (
            reducing > 0 and loops[0].stride < loops[reducing].stride
        )

        # A thread block is as wide as what lies side by side in memory, and as high as the rest.
        together = 1  # outputs that one thread computes
        if not reduces_rows and loops[reducing].stride == self.element_bytes:
            together = self._outputs_together(loops, reducing, offset)
        width, height = (inputs, outputs) if reduces_rows else (outputs // together, inputs)
        width, height = _block(width, height, _THREADS // together)

        # All threads of a block share its outputs, or each is too little work for what follows.
        values = _up(inputs, width * height if reduces_rows else height)  # of a thread
        columns = _up(outputs // together, 1 if reduces_rows else width)  # of thread blocks
        filled = multiprocessors * (threads_per_multiprocessor // (width * height))
        if values < _SHARED_FROM or columns > filled:
            return None
        blocks = max(
            _up(values, _SHARED_FROM), min(_up(filled, columns), _up(values, _LEAST))
        )  # that share an output
        if blocks == 1:
            return None
        partial = self.accumulator_bytes * outputs * blocks
        if not reduces_rows:
            partial *= width * together  # a place for each thread of a row, used or not
        return ReductionScratch(partial, _SEMAPHORE_BYTES * columns)

    def _outputs_together(self, loops: Sequence[_Loop], reducing: int, offset: int) -> int:
        """How many outputs side by side one thread reads at once: 4, 2 or 1, by alignment."""
        strides = [loop.stride for loop in (*loops[:reducing], *loops[reducing + 1 :])]
        apart = [each // self.element_bytes for each in (offset, *strides)]
        return math.gcd(4, loops[reducing].size, *apart)


# ---------------------------------------------------------------- how a tensor is walked


def _in_order(loops: list[_Loop]) -> list[_Loop]:
    """The loops that reduce, by the tensor's strides; then the others, by the result's."""
    ordered = list(loops)
    for start in range(1, len(ordered)):
        at = start
        for before in reversed(range(start)):
            order = _compared(ordered[before], ordered[at])
            if order < 0:
                break
            if order > 0:
                ordered[before], ordered[at] = ordered[at], ordered[before]
                at = before
    return ordered


def _compared(first: _Loop, second: _Loop) -> int:
    """Positive where the two are to be exchanged, negative where they are in order, 0: open."""
    if (first.result_stride == 0) != (second.result_stride == 0):
        return 1 if second.result_stride == 0 else -1
    for one, other in (
        (first.result_stride, second.result_stride),
        (first.stride, second.stride),
    ):
        if one == 0 or other == 0:
            continue
        if one != other:
            return 1 if one > other else -1
        if first.size > second.size:
            return 1
    return 0


def _coalesced(loops: Sequence[_Loop]) -> list[_Loop]:
    """Neighbors that can be walked in one loop as one."""
    merged = [loops[0]]
    for loop in loops[1:]:
        last = merged[-1]
        if last.size == 1:
            merged[-1] = loop
        elif loop.size == 1 or (
            last.size * last.stride == loop.stride
            and last.size * last.result_stride == loop.result_stride
        ):
            merged[-1] = last._replace(size=last.size * loop.size)
        else:
            merged.append(loop)
    return merged


def _parts(loops: list[_Loop], offset: int) -> Iterator[tuple[list[_Loop], int]]:
    """Halves of halves, each within reach of the kernel's indices, with their first bytes."""
    reaches = (
        1 + sum((loop.size - 1) * loop.stride for loop in loops),
        1 + sum((loop.size - 1) * loop.result_stride for loop in loops),
        math.prod(loop.size for loop in loops),
    )
    if max(reaches) <= _REACH:
        yield loops, offset
        return
    widest = max(
        reversed(range(len(loops))),
        key=lambda at: (loops[at].size - 1) * max(loops[at].stride, loops[at].result_stride),
    )
    loop = loops[widest]
    half = loop.size // 2
    for size, start in ((half, 0), (loop.size - half, half)):
        part = [*loops[:widest], loop._replace(size=size), *loops[widest + 1 :]]
        yield from _parts(part, offset + start * loop.stride)


def _block(width: int, height: int, threads: int) -> tuple[int, int]:
    """Width and height of a thread block, powers of two: a warp wide first, then high."""
    width, height = (_power_of_two(min(each, threads)) for each in (width, height))
    height = min(height, threads // min(width, _WARP))
    return min(width, threads // height), height


def _power_of_two(size: int) -> int:
    """The largest that is not above size; 1 of 0."""
    return 1 << max(0, size.bit_length() - 1)


def _up(size: int, part: int) -> int:
    return -(-size // part)
