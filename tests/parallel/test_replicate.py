"""DataParallel on virtual CPU devices: what one device computes."""

from __future__ import annotations

import numpy as np
import pytest

import pyframe as pf
from benchmarks import networks
from pyframe import nn
from pyframe.errors import DeviceError
from pyframe.parallel.replicate import DataParallel, replicate, scatter

DEVICES = ["cpu:0", "cpu:1", "cpu:2"]


def gradients(net: nn.Module, x: pf.Tensor, y: pf.Tensor) -> tuple[float, list[np.ndarray]]:
    net.zero_grad()
    loss = nn.functional.cross_entropy(net(x), y)
    loss.backward()
    return loss.item(), [p.grad.numpy() for p in net.parameters()]


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("name", ["mlp", "lstm_lm", "gpt"])
def test_gradients_are_those_of_one_device(name: str, count: int) -> None:
    net = {
        "mlp": lambda: networks.mlp(pf, (6, 8, 4)),
        "lstm_lm": lambda: networks.lstm_lm(pf, 11, 8),
        "gpt": lambda: networks.gpt(pf, 11, 8, 2, 6, 2),
    }[name]().to("cpu:0", pf.float64)
    shape, classes = ((7, 6), 4) if name == "mlp" else ((7, 6), 11)
    x = pf.randn(*shape, dtype=pf.float64) if name == "mlp" else pf.randint(0, classes, shape)
    y = pf.randint(0, classes, (7,) if name == "mlp" else (42,))
    x, y = x.to("cpu:0"), y.to("cpu:0")
    loss, grads = gradients(net, x, y)
    ours, parts = gradients(DataParallel(net, DEVICES[:count]), x, y)
    assert ours == pytest.approx(loss, rel=1e-12)
    for a, b in zip(parts, grads, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


class Tied(nn.Module):
    """One layer in two places, keyword inputs, nested outputs, a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = self.a
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: pf.Tensor, *, scale: pf.Tensor, twice: bool) -> dict:
        y = self.norm(self.b(self.a(x))) * scale
        return {"y": self.drop(y * 2 if twice else y), "sizes": (x.shape[0],)}


def test_shared_modules_buffers_containers_and_random_numbers() -> None:
    x = pf.randn(6, 4, device="cpu:0")
    scale = pf.ones(6, 1, device="cpu:0")

    def run() -> tuple:
        pf.manual_seed(3)
        net = Tied().to("cpu:0")
        out = DataParallel(net, DEVICES)(x, scale=scale, twice=True)
        out["y"].sum().backward()
        return out, net

    (out, net), (again, _) = run(), run()
    assert out["y"].shape == (6, 4) and out["sizes"] == ([2, 2, 2],)
    np.testing.assert_array_equal(out["y"].detach().numpy(), again["y"].detach().numpy())
    assert net.a is net.b and net.a.weight.grad is not None
    assert net.norm.num_batches_tracked.item() == 1
    copy = replicate(net, pf.device("cpu:1"))
    assert copy.a is copy.b and copy.a is not net.a
    assert copy.a.weight.device == pf.device("cpu:1") and not copy.a.weight.is_leaf
    # The replicas' masks differ: the same rows on two devices are not dropped alike.
    half = x[:2].repeat(2, 1)
    pf.manual_seed(0)
    y = DataParallel(nn.Dropout(0.5), DEVICES[:2])(half)
    assert not np.array_equal(y[:2].numpy(), y[2:].numpy())


def test_fewer_samples_than_devices_and_no_devices() -> None:
    net = nn.Linear(4, 2, dtype=pf.float64).to("cpu:0")
    x = pf.randn(2, 4, dtype=pf.float64, device="cpu:0")
    expected = net(x).detach().numpy()
    assert len(scatter((x,), [pf.device(d) for d in DEVICES])) == 2
    for devices in (DEVICES, []):
        y = DataParallel(net, devices)(x)
        np.testing.assert_allclose(y.detach().numpy(), expected, rtol=1e-12)


def test_losses_from_replicas_are_joined_with_a_warning() -> None:
    class Loss(nn.Module):
        def forward(self, x: pf.Tensor) -> pf.Tensor:
            return x.mean()

    with pytest.warns(UserWarning, match="over replicas"):
        out = DataParallel(Loss(), DEVICES[:2])(pf.arange(4.0, device="cpu:0"))
    assert out.tolist() == [0.5, 2.5]


def test_errors_name_the_replica_and_the_wrong_device() -> None:
    net = nn.Linear(4, 2)
    with pytest.raises(DeviceError, match=r"weight must be on device_ids\[0\], cpu:0"):
        DataParallel(net, DEVICES)(pf.ones(3, 4, device="cpu:0"))
    with pytest.raises(ValueError, match="same number of parts"):
        scatter((pf.ones(1), pf.ones(3)), [pf.device(d) for d in DEVICES])

    class Fails(nn.Module):
        def forward(self, x: pf.Tensor) -> pf.Tensor:
            return x.reshape(7)

    with pytest.raises(pf.errors.ShapeError) as caught:
        DataParallel(Fails(), DEVICES[:2])(pf.ones(4, device="cpu:0"))
    assert caught.value.__notes__ == ["in replica 0 on cpu:0"]
