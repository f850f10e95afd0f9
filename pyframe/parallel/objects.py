"""Collectives of Python objects, pickled: a job's own ranks trust each other (L6)."""

from __future__ import annotations

import pickle
from typing import Any

from ..errors import ArgumentError, fail
from .group import resolve


def all_gather_object(object_list: list, obj: Any, group: Any = None) -> None:
    """``object_list[i]`` becomes ``obj`` of rank ``i``.

    Raises:
        ArgumentError: unless the list has an entry for every rank.
    """
    group = resolve(group, "all_gather_object")
    _length(object_list, group.size, "all_gather_object")
    data = pickle.dumps(obj)
    found = group.run(
        "all_gather_object()", lambda watch: group.control.all_gather_bytes(data, watch)
    )
    object_list[:] = [pickle.loads(each) for each in found]


def gather_object(
    obj: Any, object_gather_list: list | None = None, dst: int = 0, group: Any = None
) -> None:
    """``object_gather_list[i]`` on rank ``dst`` becomes ``obj`` of rank ``i``."""
    group = resolve(group, "gather_object")
    root = group.local(dst, "gather_object")
    mine = group.rank == root
    if mine:
        _length(object_gather_list, group.size, "gather_object")
    data = pickle.dumps(obj)
    found = group.run(
        f"gather_object(dst={dst})", lambda watch: group.control.all_gather_bytes(data, watch)
    )
    if mine and object_gather_list is not None:
        object_gather_list[:] = [pickle.loads(each) for each in found]


def broadcast_object_list(object_list: list, src: int = 0, group: Any = None) -> None:
    """The entries of ``object_list`` become those of rank ``src``; all lists are equally long."""
    group = resolve(group, "broadcast_object_list")
    root = group.local(src, "broadcast_object_list")
    data = pickle.dumps(list(object_list)) if group.rank == root else b""
    text = f"broadcast_object_list({len(object_list)} objects, src={src})"
    found = group.run(text, lambda watch: group.control.broadcast_bytes(data, root, watch))
    if group.rank != root:
        object_list[:] = pickle.loads(found)


def scatter_object_list(
    output_list: list, input_list: list | None = None, src: int = 0, group: Any = None
) -> None:
    """``output_list[0]`` becomes ``input_list[rank]`` of rank ``src``."""
    group = resolve(group, "scatter_object_list")
    root = group.local(src, "scatter_object_list")
    if group.rank == root:
        _length(input_list, group.size, "scatter_object_list")
    data = pickle.dumps(input_list) if group.rank == root else b""
    text = f"scatter_object_list(src={src})"
    found = group.run(text, lambda watch: group.control.broadcast_bytes(data, root, watch))
    output_list[:1] = [pickle.loads(found)[group.rank]]


def _length(objects: list | None, size: int, op: str) -> None:
    if objects is None or len(objects) != size:
        count = "no list" if objects is None else f"a list of {len(objects)}"
        fail(ArgumentError, op, f"there are {size} ranks but {count}", "Pass [None] * world_size.")
