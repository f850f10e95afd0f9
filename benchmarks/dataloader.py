"""DataLoader against torch's: one epoch over 60000 x 1 x 28 x 28 images, batch 64, shuffled.

Run with ``python -m benchmarks.dataloader``. Both loaders run in this process, interleaved; the
figures are seconds per epoch (medians) and the ratio of pyframe to torch (below 1 is faster).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
import torch
import torch.utils.data as torch_data

from pyframe import data
from pyframe.tensor import from_numpy

from .timing import interleaved, print_table, write_result

SAMPLES = 60_000


def epoch(loader: data.DataLoader | torch_data.DataLoader) -> Callable[[], int]:
    """One pass over a loader."""

    def run() -> int:
        rows = 0
        for images, _ in loader:
            rows += len(images)
        return rows

    return run


def cases(workers: int, samples: int) -> dict[str, Callable[[], int]]:
    """The loaders to compare, by name."""
    images = np.random.default_rng(0).random((samples, 1, 28, 28), dtype=np.float32)
    labels = np.arange(samples) % 10
    ours = data.TensorDataset(from_numpy(images), from_numpy(labels))
    theirs = torch_data.TensorDataset(torch.from_numpy(images), torch.from_numpy(labels))
    options = {"batch_size": 64, "shuffle": True, "num_workers": workers}
    # torch's fastest way: a batch sampler given as the sampler, so that the tensors are indexed
    # by whole batches. It takes knowing about; the plain case is what programs write.
    batches = torch_data.BatchSampler(torch_data.RandomSampler(theirs), 64, drop_last=False)
    indexed = torch_data.DataLoader(theirs, sampler=batches, batch_size=None, num_workers=workers)
    return {
        "pyframe": epoch(data.DataLoader(ours, **options)),
        "torch": epoch(torch_data.DataLoader(theirs, **options)),
        "torch_indexed": epoch(indexed),
    }


def main() -> None:
    """Times every setting, prints the ratios and writes the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=SAMPLES)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    payload = {}
    for workers in (0, 2):
        stats = interleaved(cases(workers, arguments.samples), arguments.repeats, 0.0)
        ratios = {name: stats["pyframe"].ratio_to(stats[name]) for name in stats}
        payload[f"workers_{workers}"] = {**stats, "ratios": ratios}
        rows = [(name, stats[name], ratios[name]) for name in stats]
        print_table(f"num_workers={workers}", ["loader", "epoch", "pyframe / this"], rows)
    write_result("dataloader", payload)


if __name__ == "__main__":
    main()
