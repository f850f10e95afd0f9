"""Tensor maps: how Hopper's copy engine (TMA) finds a box of an array (L1).

A kernel takes one as ``const __grid_constant__ pf::tensor_map``, which has the code ``T`` in a
launch's signature. On a device it is a ``CUtensorMap`` of 128 bytes that the driver encodes; in the
emulator it is a description of the same size (``csrc/emulator/asynchronous.h``).
"""

from __future__ import annotations

import ctypes
import struct
from typing import Any

from ..errors import KernelError, fail
from . import driver

CODE = "T"
BYTES = 128
SPAN = 128  # bytes of a box's rows, within which the swizzle moves pieces of 16 bytes

# cuTensorMapEncodeTiled: the map, type, rank, address, lengths, strides, box, steps of elements;
# interleave, swizzle, promotion to L2, what is filled in.
_ENCODE = ctypes.CFUNCTYPE(
    *(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32),
    *[ctypes.c_void_p] * 5,
    *[ctypes.c_int] * 4,
)
_MOST_DIMENSIONS = 5
_MOST_KEPT = 1024
_encoded: dict[tuple, bytes] = {}


class TensorMap:
    """Boxes of an array of 16-bit values, copied with the 128-byte swizzle.

    Args:
        array: where element 0 is; NumPy arrays are for the emulator.
        dims: lengths, the contiguous dimension first.
        strides: bytes from one element to the next, from the second dimension on.
        box: the box's lengths; the first is 64.
    """

    __slots__ = ("array", "box", "dims", "strides")

    def __init__(
        self, array: Any, dims: tuple[int, ...], strides: tuple[int, ...], box: tuple[int, ...]
    ) -> None:
        self.array, self.dims, self.strides, self.box = array, dims, strides, box

    def described(self, address: int) -> bytes:
        """The emulator's form, for an array that lies at ``address``."""
        why = why_not(address, self.dims, self.strides, self.box)
        if why:
            fail(KernelError, "tensor map", why, array=self.array)
        rank = len(self.dims)
        empty = (0,) * (_MOST_DIMENSIONS - rank)
        return struct.pack(
            "<QII5Q4Q5II8x",
            *(address, rank, self.array.dtype.itemsize),
            *(*self.dims, *empty),
            *(*self.strides, *empty),
            *(*self.box, *empty),
            SPAN,
        )

    def encoded(self) -> bytes:
        """The driver's form; kept for the last arrays at the same places."""
        key = (self.array.data.ptr, self.array.dtype.str, self.dims, self.strides, self.box)
        found = _encoded.get(key)
        if found is None:
            if len(_encoded) >= _MOST_KEPT:
                _encoded.clear()
            found = _encoded[key] = self._encode(key[0])
        return found

    def _encode(self, address: int) -> bytes:
        why = why_not(address, self.dims, self.strides, self.box)
        if why:
            fail(KernelError, "tensor map", why, array=self.array)
        d, rank = driver.bindings(), len(self.dims)
        # Called by its address: the driver wants the map aligned, and the bindings' own lies in a
        # Python object, at multiples of 16 bytes only.
        encode = _ENCODE(driver.address_of("cuTensorMapEncodeTiled"))
        room = ctypes.create_string_buffer(2 * BYTES)
        at = -(-ctypes.addressof(room) // BYTES) * BYTES
        # Both half types are 16 bits to the copies; only zeros are filled in.
        status = encode(
            at,
            int(d.CUtensorMapDataType.CU_TENSOR_MAP_DATA_TYPE_UINT16),
            rank,
            address,
            (ctypes.c_uint64 * rank)(*self.dims),
            (ctypes.c_uint64 * len(self.strides))(*self.strides),
            (ctypes.c_uint32 * rank)(*self.box),
            (ctypes.c_uint32 * rank)(*[1] * rank),
            int(d.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE),
            int(d.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B),
            int(d.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B),
            int(d.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
        )
        if status:
            raise driver.CallError("cuTensorMapEncodeTiled", status)
        return ctypes.string_at(at, BYTES)


def why_not(
    address: int, dims: tuple[int, ...], strides: tuple[int, ...], box: tuple[int, ...]
) -> str:
    """What of the driver's rules for tensor maps such a one breaks, or "".

    >>> why_not(0, (64, 8), (128,), (64, 8))
    ''
    >>> why_not(0, (63, 8), (126,), (64, 8))
    'a stride is no multiple of 16 bytes below 2⁴⁰: 126'
    """
    if address % 16:
        return "the array does not begin at a multiple of 16 bytes"
    for stride in strides:
        if stride % 16 or not 0 < stride < 1 << 40:
            return f"a stride is no multiple of 16 bytes below 2⁴⁰: {stride}"
    for n in dims:
        if not 0 < n <= 1 << 32:
            return f"a length is not from 1 to 2³²: {n}"
    for n in box:
        if not 0 < n <= 256:
            return f"a length of the box is not from 1 to 256: {n}"
    if box[0] * 2 != SPAN:
        return f"the box's rows have {box[0] * 2} bytes, not {SPAN}"
    return ""
