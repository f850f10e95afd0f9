"""Convolution and its gradients on any array module, for any number of dimensions (L2).

A convolution becomes matrix products on a shifted layout, over parts of the batch that stay in the
cache.

The shifted layout. The values that a convolution reads are copied once into rows, one per channel,
in which a kernel tap is a *constant offset*: the row of channel c holds the padded images one
after the other, and the input of tap (a, b) for output position q is at ``q + a · width + b``. A
tap's whole operand is then a slice of the rows, which a matrix product reads where it is. The
positions whose window would wrap around the end of a row of pixels hold garbage and are cropped.

A stride splits the padded images into phases (every stride-th pixel), each of which is convolved
with stride 1 by the taps that fall on it. Where rows of pixels are short, the batch is the
innermost axis, so that fewer positions are garbage and copies stay long.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from .windows import conv_output, pairs, product, taps

NARROW = 20  # output widths below which the batch is put innermost

# Bytes of a part of the batch, and of one block of patches: NumPy works out of the cache, a GPU
# wants few large launches.
_PART = {"numpy": 3 << 20}
_PATCHES = {"numpy": 1 << 20}
_DEVICE_PART = 256 << 20


# ---------------------------------------------------------------- the layout


class Layout:
    """The shifted layout of one geometry; see the module's docstring.

    Attributes:
        shape: lengths of the axes of a row (batch and padded pixels, in the order of ``axes``).
        axes: the axis of an (N, C, *spatial) array that each axis of a row comes from.
        flat: length of a row.
        length: positions from the start that have all outputs among them.
        front: leading positions to put in front of a row so that no offset reaches before it.
        phases: the remainders modulo the stride that taps fall on.
        taps: per phase, ``(number of the tap, offset)``.
    """

    __slots__ = ("axes", "batch", "flat", "front", "length", "out", "phases", "shape", "taps")

    def __init__(
        self, batch: int, out: tuple, kernel: tuple, stride: tuple, dilation: tuple, narrow: bool
    ) -> None:
        self.batch, self.out = batch, out
        n = len(out)
        reach = [d * (k - 1) // s for k, s, d in zip(kernel, stride, dilation, strict=True)]
        pixels = tuple(o + r for o, r in zip(out, reach, strict=True))
        if narrow:
            self.shape, self.axes = (*pixels, batch), (*range(2, n + 2), 0)
        else:
            self.shape, self.axes = (batch, *pixels), (0, *range(2, n + 2))
        pitch = [product(self.shape[i + 1 :]) for i in range(n + 1)]
        steps = pitch[:-1] if narrow else pitch[1:]
        largest = sum(r * p for r, p in zip(reach, steps, strict=True))
        self.flat = product(self.shape)
        self.length = max(self.flat - largest, 0)
        self.front = -(-largest // pitch[0]) if self.flat else 0
        grouped: dict[tuple, list[tuple[int, int]]] = {}
        for number, tap in enumerate(taps(kernel)):
            reached = [t * d for t, d in zip(tap, dilation, strict=True)]
            phase = tuple(r % s for r, s in zip(reached, stride, strict=True))
            offset = sum(r // s * p for r, s, p in zip(reached, stride, steps, strict=True))
            grouped.setdefault(phase, []).append((number, offset))
        self.phases = list(grouped)
        self.taps = list(grouped.values())

    def crop(self, rows: Any) -> Any:
        """The output positions of rows (C, *shape), as a view (N, C, *out)."""
        index: list[slice] = [slice(None)]
        index += [slice(0, self.batch if a == 0 else self.out[a - 2]) for a in self.axes]
        return self.image(rows[tuple(index)])

    def image(self, rows: Any) -> Any:
        """A view of rows (C, *shape) with the axes of an (N, C, *spatial) array."""
        order = [0] * rows.ndim
        order[1] = 0
        for i, a in enumerate(self.axes):
            order[a] = i + 1
        return rows.transpose(order)

    def needed(self, target: tuple) -> tuple[int, int]:
        """The range of a row outside of which none of the pixels ``target`` are."""
        if self.axes[0] == 0 or not self.flat:
            return 0, self.flat
        pitch = self.flat // self.shape[0]
        return target[0].start * pitch, target[0].stop * pitch

    def parts(self, size: tuple, stride: tuple, before: tuple) -> list[tuple[tuple, tuple]]:
        """Per phase, which pixels of an image are at which places of a row: two index tuples.

        Args:
            size: spatial lengths of the image.
            stride: of the convolution.
            before: padding in front of each dimension.
        """
        pixels = self.shape[:-1] if self.axes[-1] == 0 else self.shape[1:]
        found = []
        for phase in self.phases:
            source, target = [], []
            for i, s, step, lo, q in zip(phase, size, stride, before, pixels, strict=True):
                first = max(-((i - lo) // step), 0)
                last = max(min((s - 1 + lo - i) // step + 1, q), first)
                start = first * step + i - lo
                source.append(slice(start, max(start + (last - first - 1) * step + 1, 0), step))
                target.append(slice(first, last))
                if last == first:
                    source[-1] = slice(0, 0)
            found.append((tuple(source), tuple(target)))
        return found


@lru_cache(maxsize=512)
def layout(batch: int, out: tuple, kernel: tuple, stride: tuple, dilation: tuple) -> Layout:
    """The :class:`Layout` of a geometry; the same object for the same arguments."""
    return Layout(batch, out, kernel, stride, dilation, out[-1] < NARROW and batch >= 8)


# ---------------------------------------------------------------- products on the shifted layout


def _shifted_product(xp: Any, weight: Any, rows: Any, offsets: list[int], out: Any) -> None:
    """out[g, m, q] = Σₜₖ weight[g, m, t, k] · rows[g, k, q + offsets[t]].

    Either patches are gathered for one long product, or one product per tap reads the rows where
    they are and the results are added; whichever moves less memory.
    """
    groups, m, count, k = weight.shape
    length = out.shape[-1]
    if count == 1:
        first = offsets[0]
        xp.matmul(weight[:, :, 0], rows[:, :, first : first + length], out=out)
    elif 2 * k <= 3 * m or k < 16:
        flat = weight.reshape(groups, m, count * k)
        for start, stop, patches in _patches(xp, rows, offsets, length):
            xp.matmul(flat, patches, out=out[:, :, start:stop])
    else:
        _add_products(xp, weight, rows, offsets, out)


def _block(xp: Any, item: int, height: int, length: int, least: int) -> int:
    """Columns of a block of ``height`` rows that fits in the cache, but at least ``least``."""
    budget = _PATCHES.get(xp.__name__, _DEVICE_PART)
    return min(max(budget // max(item * height, 1), least), length)


def _patches(xp: Any, rows: Any, offsets: list[int], length: int) -> Iterator[tuple]:
    """Blocks ``(start, stop, patches)`` with patches[g, (t, k), q] = rows[g, k, q + offsets[t]]."""
    groups, k, _ = rows.shape
    count = len(offsets)
    block = _block(xp, rows.dtype.itemsize, groups * count * k, length, 384)
    buffer = xp.empty((groups, count, k, block), rows.dtype)
    for start in range(0, length, block):
        width = min(block, length - start)
        for t, offset in enumerate(offsets):
            first = offset + start
            buffer[:, t, :, :width] = rows[:, :, first : first + width]
        patches = buffer.reshape(groups, count * k, block)[:, :, :width]
        yield start, start + width, patches


def _add_products(xp: Any, weight: Any, rows: Any, offsets: list[int], out: Any) -> None:
    groups, m, count, k = weight.shape
    length = out.shape[-1]
    matrices = [xp.ascontiguousarray(weight[:, :, t]) for t in range(count)]
    block = _block(xp, rows.dtype.itemsize, groups * (2 * m + k), length, 512)
    buffer = xp.empty((groups, m, block), rows.dtype)
    for start in range(0, length, block):
        stop = min(start + block, length)
        total, term = out[:, :, start:stop], buffer[:, :, : stop - start]
        for t, offset in enumerate(offsets):
            part = rows[:, :, start + offset : stop + offset]
            xp.matmul(matrices[t], part, out=term if t else total)
            if t:
                xp.add(total, term, out=total)


def _tap_products(xp: Any, g: Any, rows: Any, offsets: list[int]) -> Any:
    """y[g, o, t, k] = Σ_q g[g, o, q] · rows[g, k, q + offsets[t]]: the gradient of the weights."""
    groups, o, length = g.shape
    k, count = rows.shape[1], len(offsets)
    if k < 16 and count > 1:
        y = xp.zeros((groups, o, count * k), g.dtype)
        for start, stop, patches in _patches(xp, rows, offsets, length):
            y += xp.matmul(g[:, :, start:stop], patches.swapaxes(1, 2))
        return y.reshape(groups, o, count, k)
    y = xp.empty((groups, o, count, k), g.dtype)
    for t, offset in enumerate(offsets):
        y[:, :, t] = xp.matmul(g, rows[:, :, offset : offset + length].swapaxes(1, 2))
    return y


# ---------------------------------------------------------------- arrays into and out of the layout


def _batch_parts(xp: Any, batch: int, bytes_each: int) -> Iterator[slice]:
    """Parts of the batch that are worked on together."""
    budget = _PART.get(xp.__name__, _DEVICE_PART)
    step = max(budget // max(bytes_each, 1), 1)
    if step < batch:  # equal parts, so that the layout is made for few sizes
        step = -(-batch // -(-batch // step))
    for start in range(0, batch, step):
        yield slice(start, min(start + step, batch))


def _gather(xp: Any, x: Any, plan: Layout, stride: tuple, before: tuple) -> Any:
    """Rows (C, phases, flat) of images (N, C, *spatial), zeros where there is padding."""
    channels = x.shape[1]
    rows = xp.zeros((channels, len(plan.phases), *plan.shape), x.dtype)
    for p, (source, target) in enumerate(plan.parts(x.shape[2:], stride, before)):
        image = plan.image(rows[:, p])
        image[(slice(None), slice(None), *target)] = x[(slice(None), slice(None), *source)]
    return rows.reshape(channels, len(plan.phases), plan.flat)


def _scatter(plan: Layout, rows: Any, out: Any, stride: tuple, before: tuple) -> None:
    """The reverse of :func:`_gather`: writes rows (C, phases, flat) into images ``out``."""
    rows = rows.reshape(rows.shape[0], rows.shape[1], *plan.shape)
    for p, (source, target) in enumerate(plan.parts(out.shape[2:], stride, before)):
        image = plan.image(rows[:, p])
        out[(slice(None), slice(None), *source)] = image[(slice(None), slice(None), *target)]


def _gather_output(xp: Any, g: Any, plan: Layout, front: int) -> Any:
    """Rows (O, flat) of an output (N, O, *out), zeros elsewhere, after ``front`` leading zeros."""
    rows = xp.zeros((g.shape[1], front + plan.shape[0], *plan.shape[1:]), g.dtype)
    plan.crop(rows[:, front:])[...] = g
    return rows.reshape(g.shape[1], -1) if rows.size else rows.reshape(g.shape[1], 0)


def _is_pointwise(kernel: tuple, stride: tuple, padding: tuple, width: int) -> bool:
    """Whether the convolution is a matrix product per image, on images that are not tiny."""
    return (
        product(kernel) == 1
        and product(stride) == 1
        and width >= 32
        and not any(map(any, pairs(padding)))
    )


def _chosen(xp: Any, weight: Any, numbers: list[int]) -> Any:
    """A contiguous copy of some taps of weight (groups, m, taps, k)."""
    return xp.stack([weight[:, :, number] for number in numbers], axis=2)


# ---------------------------------------------------------------- the three forwards


def convolve(
    xp: Any, x: Any, w: Any, bias: Any, stride: tuple, padding: tuple, dilation: tuple, groups: int
) -> Any:
    """The convolution of x (N, C, *size) with w (O, C / groups, *kernel), plus a bias."""
    n, channels = x.shape[:2]
    o, k, kernel = w.shape[0], w.shape[1], w.shape[2:]
    out = conv_output(x.shape[2:], kernel, stride, padding, dilation)
    if bias is not None:
        bias = bias.reshape((o,) + (1,) * len(kernel))
    if not n or not x.size or not w.size:
        y = xp.zeros((n, o, *out), x.dtype)
        return y if bias is None else y + bias
    if _is_pointwise(kernel, stride, padding, product(out)):
        matrices, images = w.reshape(groups, o // groups, k), x.reshape(n, groups, k, -1)
        y = xp.matmul(matrices, images).reshape(n, o, *out)
        if bias is not None:
            y += bias
        return y
    before = tuple(lo for lo, _ in pairs(padding))
    weight = xp.ascontiguousarray(w.reshape(groups, o // groups, k, -1).swapaxes(2, 3))
    y = xp.empty((n, o, *out), x.dtype)
    for part in _batch_parts(xp, n, (channels * product(stride) + o) * product(out) * x.itemsize):
        plan = layout(part.stop - part.start, out, kernel, stride, dilation)
        rows = _gather(xp, x[part], plan, stride, before)
        total = xp.empty((groups, o // groups, plan.flat), x.dtype)
        target = total[:, :, : plan.length]
        rows = rows.reshape(groups, k * len(plan.phases), plan.flat)
        for p, found in enumerate(plan.taps):
            numbers = [number for number, _ in found]
            offsets = [offset for _, offset in found]
            own = rows[:, p :: len(plan.phases)]
            chosen = weight if len(plan.taps) == 1 else _chosen(xp, weight, numbers)
            if not p:
                _shifted_product(xp, chosen, own, offsets, target)
            else:
                term = xp.empty(target.shape, x.dtype)
                _shifted_product(xp, chosen, own, offsets, term)
                target += term
        result = plan.crop(total.reshape(o, *plan.shape))
        if bias is None:
            y[part] = result
        else:
            xp.add(result, bias, out=y[part])
    return y


def input_gradient(
    xp: Any,
    g: Any,
    w: Any,
    size: tuple,
    stride: tuple,
    padding: tuple,
    dilation: tuple,
    groups: int,
) -> Any:
    """Its gradient with respect to x, of spatial lengths ``size``, from g (N, O, *out)."""
    n, o = g.shape[:2]
    k, kernel, out = w.shape[1], w.shape[2:], g.shape[2:]
    channels = k * groups
    if not g.size or not w.size:
        return xp.zeros((n, channels, *size), g.dtype)
    if _is_pointwise(kernel, stride, padding, product(out)):
        matrices = w.reshape(groups, o // groups, k).swapaxes(1, 2)
        images = g.reshape(n, groups, o // groups, -1)
        return xp.matmul(matrices, images).reshape(n, channels, *size)
    before = tuple(lo for lo, _ in pairs(padding))
    weight = w.reshape(groups, o // groups, k, -1).transpose(0, 2, 3, 1)
    y = xp.zeros((n, channels, *size), g.dtype)
    for part in _batch_parts(xp, n, (channels * product(stride) + o) * product(out) * g.itemsize):
        plan = layout(part.stop - part.start, out, kernel, stride, dilation)
        rows = _gather_output(xp, g[part], plan, plan.front)
        start = rows.shape[1] - plan.flat
        targets = plan.parts(size, stride, before)
        rows = rows.reshape(groups, o // groups, -1)
        result = xp.empty((len(plan.phases), groups, k, plan.flat), g.dtype)
        for p, found in enumerate(plan.taps):
            chosen = _chosen(xp, weight, [number for number, _ in found])
            first, last = plan.needed(targets[p][1])
            offsets = [start + first - offset for _, offset in found]
            if last > first:
                _shifted_product(xp, chosen, rows, offsets, result[p][:, :, first:last])
        result = result.reshape(len(plan.phases), channels, plan.flat).swapaxes(0, 1)
        _scatter(plan, result, y[part], stride, before)
    return y


def weight_gradient(
    xp: Any,
    g: Any,
    x: Any,
    kernel: tuple,
    stride: tuple,
    padding: tuple,
    dilation: tuple,
    groups: int,
) -> Any:
    """Its gradient with respect to w, from g (N, O, *out) and x."""
    n, o = g.shape[:2]
    out = g.shape[2:]
    channels = x.shape[1]
    k, count = channels // groups, product(kernel)
    if not g.size or not x.size:
        return xp.zeros((o, k, *kernel), g.dtype)
    before = tuple(lo for lo, _ in pairs(padding))
    y = xp.zeros((groups, o // groups, count, k), g.dtype)
    for part in _batch_parts(xp, n, (channels * product(stride) + o) * product(out) * g.itemsize):
        plan = layout(part.stop - part.start, out, kernel, stride, dilation)
        own = _gather_output(xp, g[part], plan, 0)[:, : plan.length]
        own = own.reshape(groups, o // groups, plan.length)
        rows = _gather(xp, x[part], plan, stride, before)
        rows = rows.reshape(groups, k * len(plan.phases), plan.flat)
        for p, found in enumerate(plan.taps):
            terms = _tap_products(
                xp, own, rows[:, p :: len(plan.phases)], [offset for _, offset in found]
            )
            for i, (number, _) in enumerate(found):
                y[:, :, number] += terms[:, :, i]
    return xp.ascontiguousarray(y.swapaxes(2, 3)).reshape(o, k, *kernel)
