"""A short run against an installed pyframe with only its base dependencies."""

import sys
import tempfile
from pathlib import Path

EXTRAS = ("torch", "cupy", "numba", "matplotlib", "sklearn", "tensorboard", "PIL", "scipy")


def check_import():
    """Importing pyframe imports none of the extras."""
    import pyframe as pf
    from pyframe.backend import kernel_sources, native

    loaded = [name for name in EXTRAS if name in sys.modules]
    assert not loaded, f"import pyframe imported {loaded}"
    assert "site-packages" in pf.__file__, f"{pf.__file__} is not an installed package"
    assert kernel_sources.folder().name == "_kernels"
    print("pyframe:", Path(pf.__file__).parent)
    print("native extension:", "loaded" if native.available() else native.why_not())


def check_ops():
    """A few operations and gradients have the values of pencil and paper."""
    import numpy as np

    import pyframe as pf

    x = pf.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    y = (x * x).sum() + x.mean()
    y.backward()
    assert float(y.item()) == 32.5
    np.testing.assert_allclose(np.asarray(x.grad), 2 * np.array([[1, 2], [3, 4]]) + 0.25)
    with pf.no_grad():
        assert (x @ x).tolist() == [[7.0, 10.0], [15.0, 22.0]]
        assert x.max().item() == 4.0
        assert x.reshape(4)[1:3].tolist() == [2.0, 3.0]
    assert (pf.tensor([1, 2], dtype=pf.int32) + pf.tensor([0.5, 0.5])).dtype == pf.float32


def check_training():
    """A small network learns XOR-like data, and its weights survive saving and loading."""
    import pyframe as pf
    import pyframe.nn as nn
    import pyframe.nn.functional as F
    from pyframe.optim import Adam

    pf.manual_seed(0)
    x = pf.rand(256, 2) * 2 - 1
    target = ((x[:, 0] > 0) != (x[:, 1] > 0)).long()
    model = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))
    optimizer = Adam(model.parameters(), lr=0.02)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0], losses[:: len(losses) - 1]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        pf.save(model.state_dict(), path)
        copy = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 2))
        copy.load_state_dict(pf.load(path))
        with pf.no_grad():
            assert (copy(x) == model(x)).all().item()


def check_convolution():
    """Convolution, normalisation and pooling run forward and backward."""
    import pyframe as pf
    import pyframe.nn as nn

    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()
    )
    x = pf.randn(2, 1, 8, 8, requires_grad=True)
    y = model(x)
    assert tuple(y.shape) == (2, 64)
    (y * y).sum().backward()
    assert x.grad.shape == x.shape
    assert all(parameter.grad is not None for parameter in model.parameters())


if __name__ == "__main__":
    check_import()
    check_ops()
    check_training()
    check_convolution()
    print("smoke: ok")
