"""Tensors and other libraries: DLPack, NumPy's protocols, pickling, formatting."""

from __future__ import annotations

import copy
import pickle

import ml_dtypes
import numpy as np
import pytest
import torch

import pyframe as pf
from pyframe.errors import ArgumentTypeError, AutogradError, ExchangeError

NUMPY_DTYPES = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64"]
DTYPES = [*NUMPY_DTYPES, "bfloat16"]


def values(dtype: str, shape: tuple[int, ...] = (2, 3)) -> np.ndarray:
    count = int(np.prod(shape))
    return (
        np.arange(count).reshape(shape) % 2 if dtype == "bool" else np.arange(count).reshape(shape)
    )


# ---- DLPack


@pytest.mark.parametrize("dtype", DTYPES)
def test_torch_shares_our_memory(dtype: str) -> None:
    ours = pf.tensor(values(dtype), dtype=dtype)
    theirs = torch.from_dlpack(ours)
    assert str(theirs.dtype) == f"torch.{dtype}"
    assert theirs.shape == (2, 3)
    assert theirs.data_ptr() == ours.data_ptr()
    theirs[0, 0] = 1
    assert ours[0, 0].item() == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_we_share_the_memory_of_torch(dtype: str) -> None:
    theirs = torch.tensor(values(dtype)).to(getattr(torch, dtype))
    ours = pf.from_dlpack(theirs)
    assert str(ours.dtype) == dtype
    assert ours.data_ptr() == theirs.data_ptr()
    theirs[0, 0] = 1
    assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_numpy_both_ways(dtype: str) -> None:
    host = values(dtype).astype(dtype)
    ours = pf.from_dlpack(host)
    assert np.shares_memory(ours.numpy(), host)
    back = np.from_dlpack(ours)
    assert back.dtype == host.dtype
    assert np.shares_memory(back, host)


def test_numpy_has_no_bfloat16_but_shares_it_by_other_means() -> None:
    ours = pf.tensor([1.0, 2.0], dtype="bfloat16")
    with pytest.raises((BufferError, RuntimeError)):
        np.from_dlpack(ours)
    assert ours.numpy().dtype == ml_dtypes.bfloat16
    assert np.shares_memory(ours.numpy(), ours.array)
    ours.numpy().view(np.int16)[0] = 0
    assert ours.tolist() == [0.0, 2.0]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.t() if hasattr(x, "t") else x.T,
        lambda x: x[:, 1:],
        lambda x: x[1],
        lambda x: x[:, ::2],
        lambda x: x[1, 2],
        lambda x: x[:0],
    ],
    ids=["transpose", "slice", "row", "step", "0-d", "empty"],
)
def test_strides_and_offsets_travel(view: object, dtype: str) -> None:
    theirs = view(torch.arange(6).reshape(2, 3).to(getattr(torch, dtype)))
    ours = pf.from_dlpack(theirs)
    assert tuple(ours.shape) == tuple(theirs.shape)
    if theirs.numel():  # NumPy sets the strides of empty arrays to 0
        assert ours.stride() == theirs.stride()
    assert torch.from_dlpack(ours).tolist() == theirs.tolist()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_memory_outlives_the_producer(dtype: str) -> None:
    ours = pf.from_dlpack(torch.full((1024,), 3.0, dtype=getattr(torch, dtype)))
    theirs = torch.from_dlpack(pf.full((1024,), 4.0, dtype=dtype))
    assert ours.sum().item() == 3072
    assert theirs.double().sum() == 4096


@pytest.mark.parametrize("version", [None, (0, 8), (1, 0), (1, 3)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_capsules_of_both_versions(version: tuple | None, dtype: str) -> None:
    ours = pf.tensor([1.0, 2.0], dtype=dtype)
    capsule = ours.__dlpack__(max_version=version)
    wanted = "dltensor_versioned" if version and version[0] >= 1 else "dltensor"
    assert f'"{wanted}"' in repr(capsule)
    back = pf.from_dlpack(capsule)
    assert back.data_ptr() == ours.data_ptr()
    assert back.dtype == ours.dtype
    with pytest.raises(ArgumentTypeError, match=r"from_dlpack: .*unused DLPack capsule.*once"):
        pf.from_dlpack(capsule)


def test_torch_takes_our_capsule() -> None:
    ours = pf.tensor([1.0, 2.0], dtype="bfloat16")
    theirs = torch.utils.dlpack.from_dlpack(pf.to_dlpack(ours))
    assert theirs.data_ptr() == ours.data_ptr()
    assert theirs.dtype == torch.bfloat16


def test_unused_capsules_are_freed() -> None:
    import gc
    import weakref

    ours = pf.tensor([1.0], dtype="bfloat16")
    alive = weakref.ref(ours)
    capsule = ours.__dlpack__()
    del capsule, ours
    gc.collect()
    assert alive() is None


def test_read_only_arrays() -> None:
    host = np.arange(3.0)
    host.flags.writeable = False
    ours = pf.from_dlpack(host)
    assert ours.tolist() == [0, 1, 2]
    assert not np.from_dlpack(ours).flags.writeable
    with pytest.raises(ValueError, match=r"add_: .*read-only.*clone\(\)"):
        ours.add_(1)
    with pytest.raises(ValueError, match=r"read-only.*clone\(\)"):
        ours[0] = 1
    assert host.tolist() == [0, 1, 2]
    with pytest.raises(BufferError, match=r"__dlpack__.*clone\(\)"):
        ours.__dlpack__()


def test_copy_and_device_keywords() -> None:
    ours = pf.tensor([1.0, 2.0])
    assert np.from_dlpack(ours, copy=False).ctypes.data == ours.data_ptr()
    assert np.from_dlpack(ours, copy=True).ctypes.data != ours.data_ptr()
    assert np.from_dlpack(ours, device="cpu").ctypes.data == ours.data_ptr()
    host = np.zeros(2)
    assert np.shares_memory(pf.from_dlpack(host, copy=False).numpy(), host)
    assert not np.shares_memory(pf.from_dlpack(host, copy=True).numpy(), host)
    assert pf.from_dlpack(host, device="cpu:1").device == pf.device("cpu:1")
    with pytest.raises(ExchangeError, match="from_dlpack: from cpu to cpu:1 needs a copy"):
        pf.from_dlpack(host, device="cpu:1", copy=False)
    with pytest.raises(BufferError, match="__dlpack__: cannot export to DLPack device"):
        ours.__dlpack__(dl_device=(2, 0))
    with pytest.raises(BufferError, match="__dlpack__: a CPU tensor has no stream"):
        ours.__dlpack__(stream=1)
    assert ours.__dlpack_device__() == (1, 0)


def test_virtual_devices_are_the_cpu_to_others() -> None:
    ours = pf.ones(2).to("cpu:1")
    assert torch.from_dlpack(ours).data_ptr() == ours.data_ptr()
    assert np.shares_memory(ours.numpy(), ours.array)


def test_gradients_are_not_lost_silently() -> None:
    ours = pf.ones(2, requires_grad=True)
    with pytest.raises(BufferError, match=r"__dlpack__: .*requires grad.*detach\(\)"):
        torch.from_dlpack(ours)
    with pytest.raises(ExchangeError, match="from_dlpack: the producer cannot export it"):
        pf.from_dlpack(torch.ones(2, requires_grad=True))


@pytest.mark.parametrize("value", [3, "text", None, [1.0], len], ids=str)
def test_not_a_producer(value: object) -> None:
    with pytest.raises(ArgumentTypeError, match="from_dlpack: expected a tensor with __dlpack__"):
        pf.from_dlpack(value)


def test_dtype_without_counterpart() -> None:
    with pytest.raises(ExchangeError, match=r"complex64 has no counterpart.*Supported"):
        pf.from_dlpack(np.zeros(2, np.complex64))
    with pytest.raises(ExchangeError, match="from_dlpack"):
        pf.from_dlpack(torch.zeros(2, dtype=torch.float8_e5m2))


def test_producer_of_an_older_version() -> None:
    class Old:
        def __init__(self, array: np.ndarray) -> None:
            self.array = array

        def __dlpack__(self, stream: object = None) -> object:
            return self.array.__dlpack__()

        def __dlpack_device__(self) -> tuple[int, int]:
            return (1, 0)

    host = np.arange(3.0)
    assert np.shares_memory(pf.from_dlpack(Old(host)).numpy(), host)
    with pytest.raises(TypeError):
        pf.from_dlpack(Old(host), copy=False)


def test_to_dlpack_needs_a_tensor() -> None:
    with pytest.raises(TypeError, match="to_dlpack: expected a Tensor, not ndarray"):
        pf.to_dlpack(np.zeros(2))


def test_interop_module_has_the_same_functions() -> None:
    import pyframe.interop

    assert pyframe.interop.from_dlpack is pf.from_dlpack


# ---- CUDA array interface


def test_no_cuda_array_interface_on_the_cpu() -> None:
    ours = pf.ones(2)
    assert not hasattr(ours, "__cuda_array_interface__")
    with pytest.raises(AttributeError, match=r"__cuda_array_interface__.*not on a CUDA device"):
        _ = ours.__cuda_array_interface__


# ---- NumPy's protocols


@pytest.mark.parametrize("dtype", DTYPES)
def test_asarray_shares(dtype: str) -> None:
    ours = pf.tensor(values(dtype), dtype=dtype)
    host = np.asarray(ours)
    assert host.dtype == ours.dtype
    assert np.shares_memory(host, ours.array)


def test_array_copy_semantics() -> None:
    ours = pf.tensor([1.0, 2.0])
    assert not np.shares_memory(np.array(ours), ours.array)
    assert np.shares_memory(np.array(ours, copy=False), ours.array)
    assert np.asarray(ours, dtype=np.float64).dtype == np.float64
    assert np.shares_memory(np.asarray(ours, dtype=np.float32), ours.array)
    with pytest.raises(ValueError, match="without a copy"):
        np.array(ours, dtype=np.float64, copy=False)


def test_numpy_method() -> None:
    ours = pf.ones(2)
    ours.numpy()[0] = 5
    assert ours.tolist() == [5, 1]
    needs = pf.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"numpy: .*requires grad.*detach\(\)\.numpy\(\)"):
        needs.numpy()
    assert np.shares_memory(needs.numpy(force=True), needs.array)
    assert np.shares_memory(needs.detach().numpy(), needs.array)


OPERATORS = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a / b,
    "//": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "**": lambda a, b: a**b,
    "@": lambda a, b: a @ b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("shape", [(3,), (2, 3)], ids=str)
def test_operators_with_arrays_give_tensors(name: str, shape: tuple) -> None:
    a = np.full(shape, 3.0, np.float32)
    b = np.array([1.0, 2.0, 4.0], np.float32)
    expected = OPERATORS[name](a, b)
    for left, right in ((a, pf.tensor(b)), (pf.tensor(a), b)):
        result = OPERATORS[name](left, right)
        assert isinstance(result, pf.Tensor)
        np.testing.assert_allclose(np.asarray(result), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "scalar", [np.float32(2), np.float64(2), np.int64(2), np.bool_(True)], ids=repr
)
def test_operators_with_numpy_scalars(scalar: np.generic) -> None:
    x = pf.tensor([1.0, 2.0])
    for result in (scalar * x, x * scalar, scalar + x, scalar - x):
        assert isinstance(result, pf.Tensor)
        assert result.dtype == pf.float32


def test_array_times_tensor_is_recorded() -> None:
    x = pf.tensor([1.0, 2.0], requires_grad=True)
    (np.array([3.0, 4.0], np.float32) * x).sum().backward()
    assert x.grad.tolist() == [3, 4]


def test_augmented_assignment_is_the_operator() -> None:
    host = np.zeros(2)
    result = host
    result += pf.tensor([1.0, 2.0])  # as result = result + tensor: a new Tensor
    assert isinstance(result, pf.Tensor)
    assert result.tolist() == [1, 2]
    assert host.tolist() == [0, 0]
    np.add(host, pf.tensor([1.0, 2.0]), out=host)
    assert host.tolist() == [1, 2]


@pytest.mark.parametrize(
    "call",
    [
        lambda x: np.add(np.ones(3, np.float32), x),
        np.exp,
        np.sum,
        lambda x: np.mean(x, axis=0, keepdims=True),
        lambda x: np.stack([x, x]),
        lambda x: np.concatenate((x, x), axis=0),
        lambda x: np.where(x > 1, x, 0),
        np.sort,
        np.linalg.norm,
        lambda x: np.einsum("i,i->", x, x),
        lambda x: np.clip(x, a_min=0, a_max=1),
    ],
)
def test_numpy_functions_give_arrays(call: object) -> None:
    x = pf.tensor([3.0, 1.0, 2.0])
    result = call(x)
    assert isinstance(result, (np.ndarray, np.generic))
    np.testing.assert_array_equal(result, call(x.numpy()))
    with pytest.raises(AutogradError, match=r"numpy.*requires grad"):
        call(pf.tensor([3.0, 1.0, 2.0], requires_grad=True))


def test_numpy_looks_at_shapes_of_tensors_that_require_grad() -> None:
    x = pf.ones(2, 3, requires_grad=True)
    assert (np.shape(x), np.ndim(x), np.size(x)) == ((2, 3), 2, 6)


def test_numpy_testing() -> None:
    np.testing.assert_allclose(pf.tensor([1.0, 2.0]), [1, 2])
    np.testing.assert_array_equal(pf.tensor([1, 2]), np.array([1, 2]))


# ---- the sequence protocol


def test_iteration() -> None:
    x = pf.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    rows = list(x)
    assert [r.tolist() for r in rows] == [[1, 2], [3, 4]]
    (rows[0] * rows[1]).sum().backward()
    assert x.grad.tolist() == [[3, 4], [1, 2]]
    first, second = pf.tensor([5, 6])
    assert (int(first), float(second)) == (5, 6.0)
    assert list(pf.zeros(0)) == []
    with pytest.raises(TypeError, match="iter: cannot iterate over a 0-d tensor"):
        iter(pf.tensor(1.0))
    with pytest.raises(TypeError, match="len: a 0-d tensor has no length"):
        len(pf.tensor(1.0))


@pytest.mark.parametrize("kind", [np.int64, np.int32, np.uint8, np.intp], ids=lambda k: k.__name__)
def test_indexing_by_numpy_integers(kind: type) -> None:
    x = pf.tensor([10.0, 20.0, 30.0])
    assert x[kind(1)].item() == 20
    assert x[kind(1) : kind(3)].tolist() == [20, 30]
    assert x[np.array([0, 2]).astype(kind) if kind is not np.uint8 else [0, 2]].tolist() == [10, 30]
    x[kind(0)] = 5
    assert x.tolist() == [5, 20, 30]


def test_tensors_index_lists_and_arrays() -> None:
    assert ["a", "b"][pf.tensor(1)] == "b"
    assert np.arange(5)[pf.tensor(3)] == 3
    assert np.arange(5)[pf.tensor([0, 4])].tolist() == [0, 4]
    assert range(10)[pf.tensor([2])] == 2
    with pytest.raises(TypeError, match="index: only one integer"):
        ["a", "b"][pf.tensor(1.0)]


# ---- pickling and copying


@pytest.mark.parametrize("dtype", DTYPES)
def test_pickle_every_dtype(dtype: str) -> None:
    x = pf.tensor(values(dtype), dtype=dtype)
    y = pickle.loads(pickle.dumps(x))
    assert y.dtype == x.dtype
    assert y.tolist() == x.tolist()


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_duplicates_keep_what_a_tensor_is(duplicate: object) -> None:
    x = pf.ones(2, requires_grad=True)
    x.note = ["kept"]
    y = duplicate(x)
    assert y.requires_grad
    assert y.is_leaf
    assert y.note == ["kept"]
    assert y.note is not x.note
    assert not np.shares_memory(y.array, x.array)
    (y * 2).sum().backward()
    assert x.grad is None
    assert duplicate(pf.ones(1).to("cpu:1")).device == pf.device("cpu:1")
    parameter = duplicate(pf.nn.Parameter(pf.ones(2)))
    assert isinstance(parameter, pf.nn.Parameter)
    assert parameter.requires_grad


def test_deepcopy_keeps_sharing_and_grad() -> None:
    x = pf.ones(2, requires_grad=True)
    (x * 3).sum().backward()
    first, second = copy.deepcopy([x, x])
    assert first is second
    assert first.grad.tolist() == [3, 3]
    assert first.grad is not x.grad
    with pytest.raises(RuntimeError, match=r"deepcopy: only leaves.*detach\(\)"):
        copy.deepcopy(x * 2)


def test_pickled_non_leaf_comes_back_as_a_leaf() -> None:
    y = pickle.loads(pickle.dumps(pf.ones(2, requires_grad=True) * 2))
    assert y.requires_grad
    assert y.is_leaf


def test_copy_of_a_view_has_its_own_memory() -> None:
    base = pf.arange(6.0).reshape(2, 3)
    part = pickle.loads(pickle.dumps(base[:, 1]))
    assert part.tolist() == [1, 4]
    part.zero_()
    assert base[:, 1].tolist() == [1, 4]


# ---- formatting


@pytest.mark.parametrize("spec", ["", ".3f", "8.2e", "g", ">10", "d"])
@pytest.mark.parametrize("value", [1.5, -0.25, 7, True])
def test_format_of_single_numbers(value: object, spec: str) -> None:
    if spec == "d" and isinstance(value, float):
        with pytest.raises(ValueError, match="Unknown format code"):
            format(pf.tensor(value), spec)
    else:
        assert format(pf.tensor(value), spec) == format(torch.tensor(value), spec)


def test_format_of_others() -> None:
    assert f"{pf.tensor([1.5])}" == "tensor([1.5000])"
    assert f"{pf.tensor(1.5, requires_grad=True):.1f}" == "1.5"
    with pytest.raises(TypeError, match="unsupported format string"):
        f"{pf.tensor([1.5]):.2f}"
