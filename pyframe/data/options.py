"""The checks of a DataLoader's arguments; messages and classes follow PyTorch's."""

from __future__ import annotations

from typing import Any

from ..errors import ArgumentError, ArgumentTypeError, fail


def check_worker_options(
    num_workers: int, timeout: float, prefetch_factor: int | None, persistent_workers: bool
) -> None:
    """Refuses options of workers that are out of range or need workers."""
    if num_workers < 0:
        fail(
            ArgumentError,
            "DataLoader",
            f"num_workers option should be non-negative but is {num_workers}",
            "Use num_workers=0 to read in this process.",
        )
    if timeout < 0:
        fail(ArgumentError, "DataLoader", f"timeout option should be non-negative but is {timeout}")
    if num_workers == 0 and prefetch_factor is not None:
        fail(
            ArgumentError,
            "DataLoader",
            "prefetch_factor could only be specified with workers",
            "Pass num_workers > 0, or leave prefetch_factor out.",
        )
    if prefetch_factor is not None and prefetch_factor < 1:
        fail(
            ArgumentError,
            "DataLoader",
            f"prefetch_factor should be at least 1 but is {prefetch_factor}",
        )
    if persistent_workers and num_workers == 0:
        fail(ArgumentError, "DataLoader", "persistent_workers option needs num_workers > 0")


def check_stream_options(shuffle: Any, sampler: Any, batch_sampler: Any) -> None:
    """Refuses what an iterable dataset cannot have."""
    given = {"shuffle": shuffle or None, "sampler": sampler, "batch_sampler": batch_sampler}
    for name, value in given.items():
        if value is not None:
            fail(
                ArgumentError,
                "DataLoader",
                f"with an IterableDataset the {name} option must not be given",
                "A stream has its own order: shuffle in its __iter__.",
                **{name: value},
            )


def check_batch_options(
    batch_size: int | None, shuffle: bool, sampler: Any, batch_sampler: Any, drop_last: bool
) -> tuple[int | None, bool]:
    """Refuses options that exclude each other; returns batch_size and drop_last as they apply."""
    if sampler is not None and shuffle:
        fail(ArgumentError, "DataLoader", "sampler option is mutually exclusive with shuffle")
    if batch_sampler is not None:
        if batch_size != 1 or shuffle or sampler is not None or drop_last:
            fail(
                ArgumentError,
                "DataLoader",
                "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, "
                "and drop_last",
            )
        return None, False
    if batch_size is None and drop_last:
        fail(
            ArgumentError,
            "DataLoader",
            "batch_size=None turns batching off and is mutually exclusive with drop_last",
        )
    return batch_size, drop_last


def process_context(value: Any, num_workers: int) -> Any:
    """The multiprocessing context of a name or a context."""
    import multiprocessing
    from multiprocessing.context import BaseContext

    if num_workers == 0:
        fail(
            ArgumentError,
            "DataLoader",
            "multiprocessing_context can only be used with workers",
            "Pass num_workers > 0.",
        )
    if isinstance(value, str):
        methods = multiprocessing.get_all_start_methods()
        if value not in methods:
            fail(
                ArgumentError,
                "DataLoader",
                f"multiprocessing_context={value!r} is not a start method here",
                f"Use one of {', '.join(methods)}.",
            )
        return multiprocessing.get_context(value)
    if not isinstance(value, BaseContext):
        fail(
            ArgumentTypeError,
            "DataLoader",
            "multiprocessing_context should be a name or a multiprocessing context",
            multiprocessing_context=value,
        )
    return value
