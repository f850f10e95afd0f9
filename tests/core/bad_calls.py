"""Calls that are mistakes, with the error and the message that each must give, by error."""

from __future__ import annotations

from typing import NamedTuple

from pyframe.errors import (
    ArgumentError,
    ArgumentTypeError,
    AutogradError,
    DtypeError,
    ParameterError,
    PyframeError,
    RangeError,
    ShapeError,
    StateError,
)


class Row(NamedTuple):
    """``call`` is an expression: ``lib`` is the library, ``F`` its nn.functional."""

    call: str
    error: type[Exception]
    pattern: str
    parity: bool = True  # whether PyTorch raises one of the error's built-in classes


def rows(error: type[Exception], *pairs: tuple, parity: bool = True) -> list[Row]:
    """One Row for each pair of a call and its pattern."""
    return [Row(call, error, pattern, parity) for call, pattern in pairs]


SHAPES = rows(
    ShapeError,
    ("ones(2,3)+ones(4)", r"add: the shapes do not broadcast .*\[2,3\].*\[4\].*equal or 1"),
    ("ones(2).add_(ones(3))", r"add_: the shapes do not broadcast"),
    ("ones(2).add_(ones(3),alpha=2)", r"add_: the shapes do not broadcast"),
    ("ones(2).mul_(ones(3))", r"mul_: the shapes do not broadcast"),
    ("ones(2)/ones(3)", r"true_divide: the shapes do not broadcast"),
    ("1-ones(2)-ones(3)", r"sub: the shapes do not broadcast"),
    ("ones(3)**ones(2)", r"pow: the shapes do not broadcast"),
    ("ones(3).clamp(ones(2))", r"clamp: the shapes do not broadcast"),
    ("ones(3).masked_select(ones(2)>0)", r"masked_select: the shapes do not broadcast"),
    ("ones(3).masked_fill(ones(2)>0,1.0)", r"masked_fill: the shapes do not broadcast"),
    ("ones(3).__setitem__(0,ones(2))", r"assignment: a value of shape"),
    ("ones(1).add_(ones(3))", r"add_: the result has shape \(3,\).*out-of-place"),
    ("lib.where(ones(2)>0,ones(3),ones(2))", r"where: the shapes do not broadcast"),
    ("ones(2,3)@ones(2,3)", r"matmul: shapes cannot be multiplied: input has 3 columns"),
    ("ones(())@ones(2)", r"matmul: both must have at least one dimension.*Use \*"),
    ("lib.mm(ones(2,3),ones(3))", r"mm: mat2 must have 2 dimensions"),
    ("lib.bmm(ones(2,3,4),ones(3,4,5))", r"bmm: the batches have different lengths"),
    ("lib.dot(ones(2),ones(3))", r"dot: shapes cannot be multiplied"),
    ("lib.einsum('ij,jk->ik',ones(2,3),ones(4,5))", r"einsum: subscript 'j' stands for"),
    ("lib.einsum('ij,jk->iz',ones(2,3),ones(3,5))", r"einsum: output subscript 'z'"),
    ("F.linear(ones(2,3),ones(4,5))", r"linear: weight expects 5 input features but input has 3"),
    ("F.linear(ones(2,3),ones(4,3),ones(5))", r"linear: bias must have 4 elements"),
    ("ones(2,3).reshape(4,2)", r"reshape: 6 elements do not fit.*multiply to the number"),
    ("ones(2,3).reshape(-1,-1)", r"reshape: only one size can be -1"),
    ("zeros(0).reshape(-1,0)", r"reshape: -1 could be any size"),
    ("ones(2,3).t().view(6)", r"view: .*without a copy.*Use reshape\(\)"),
    ("ones(2,3,4).t()", r"t: input has 3 dimensions.*transpose"),
    ("ones(2,3).permute(0)", r"permute: 1 dims for 2 dimensions"),
    ("ones(2,3).permute(0,0)", r"permute: a dim occurs twice"),
    ("ones(2,3).expand(3,3)", r"expand: dimension 0 has length 2.*length 1 can be expanded"),
    ("lib.cat([ones(2,3),ones(2,4)])", r"cat: tensor 1 differs outside dimension 0"),
    ("lib.stack([ones(2),ones(3)])", r"stack: tensor 1 has another shape"),
    ("ones(5).split([2,2])", r"split: lengths \[2, 2\] do not sum to 5"),
    ("ones(2,3).narrow(1,2,2)", r"narrow: 2 elements from 2 on do not fit"),
    ("ones(2).tril()", r"tril: input must have at least two dimensions"),
    ("bool(ones(2))", r"bool: the truth value of a tensor with 2 elements.*any\(\) or all\(\)"),
    ("bool(zeros(0))", r"bool: the truth value of a tensor with no elements"),
    ("ones(2).item()", r"item: .*exactly one element.*tolist\(\)"),
    ("F.layer_norm(ones(2,3),(4,))", r"layer_norm: normalized_shape is \(4,\)"),
    ("F.batch_norm(ones(2,3),ones(2),ones(2))", r"batch_norm: running_mean must have one element"),
    ("F.cross_entropy(ones(2,3),t([0,1]),weight=ones(2))", r"cross_entropy: weight must have one"),
    ("F.mse_loss(ones(2),ones(3,4))", r"mse_loss: the shapes do not broadcast"),
    ("F.l1_loss(ones(2),ones(3,4))", r"l1_loss: the shapes do not broadcast"),
    ("F.kl_div(ones(2),ones(3,4),reduction='sum')", r"kl_div: the shapes do not broadcast"),
    ("F.cosine_similarity(ones(2,3),ones(3,4))", r"cosine_similarity: the shapes do not broadcast"),
    (
        "F.scaled_dot_product_attention(ones(1,2,3),ones(1,2,4),ones(1,2,3))",
        r"scaled_dot_product_attention: query has 3 features but key has 4",
    ),
    ("zeros(-1)", r"zeros: a size must not be negative"),
    ("lib.nn.Linear(-1,2)", r"Linear: a size must not be negative"),
    ("lib.nn.Conv2d(-1,2,3)", r"Conv2d: a size must not be negative"),
    ("lib.nn.Embedding(-1,2)", r"Embedding: a size must not be negative"),
    ("lib.nn.Linear(3,2)(ones(4,5))", r"linear: .*in module Linear\(in_features=3"),
    ("lib.nn.Conv2d(3,4,3)(ones(1,2,8,8))", r"conv2d: .*in module Conv2d\(3, 4"),
)


CONVOLUTION = rows(
    ShapeError,
    ("F.conv2d(ones(1,3,8,8),ones(4,2,3,3))", r"conv2d: weight expects 2 input channels"),
    ("F.conv2d(ones(1,3,2,2),ones(4,3,3,3))", r"conv2d: the kernel \(3, 3\).*Pad more"),
    ("F.conv2d(ones(8,8),ones(4,3,3,3))", r"conv2d: expected input with 4 dimensions"),
    ("F.conv2d(ones(1,3,8,8),ones(4,3,3))", r"conv2d: weight must have 4 dimensions"),
    ("F.conv2d(ones(1,3,8,8),ones(4,3,3,3),bias=ones(3))", r"conv2d: bias must have 4 elements"),
    ("F.conv2d(ones(1,3,8,8),ones(4,3,3,3),stride=0)", r"conv2d: stride must be at least 1"),
    ("F.conv2d(ones(1,3,8,8),ones(4,3,3,3),padding=-1)", r"conv2d: padding must be at least 0"),
    ("F.conv2d(ones(1,3,8,8),ones(4,3,3,3),padding='no')", r"conv2d: padding must be 'same'"),
    (
        "F.conv2d(ones(1,3,8,8),ones(4,3,3,3),stride=2,padding='same')",
        r"conv2d: padding='same' needs stride 1",
    ),
    ("F.conv2d(ones(1,3,8,8),ones(4,3,3,3),dilation=0)", r"conv2d: dilation must be at least 1"),
    ("F.conv2d(ones(1,3,8,8),ones(4,3,3,3),dilation=5)", r"conv2d: the kernel .*Pad more"),
    ("F.conv2d(ones(1,3,8,8),ones(4,3,3,3),groups=2)", r"conv2d: weight expects 6 input"),
    ("F.conv2d(ones(1,3,8,8),ones(4,3,3,3),groups=0)", r"conv2d: groups must be at least 1"),
    ("F.conv2d(ones(1,4,8,8),ones(3,2,3,3),groups=2)", r"conv2d: .*multiple of groups"),
    ("F.conv2d(ones(1,3,8,8),ones(4,3,3,3),stride=(1,2,3))", r"conv2d: stride must be one integer"),
    ("F.conv1d(ones(1,3,8),ones(4,3,9))", r"conv1d: the kernel \(9,\)"),
    ("F.max_pool2d(ones(1,1,4,4),0)", r"max_pool2d: kernel_size must be at least 1"),
    ("F.max_pool2d(ones(1,1,4,4),5)", r"max_pool2d: the kernel is larger than the padded input"),
    ("F.max_pool2d(ones(1,1,4,4),2,padding=2)", r"max_pool2d: padding must be at most half"),
    ("F.avg_pool2d(ones(1,1,4,4),2,stride=0)", r"avg_pool2d: stride must be at least 1"),
    ("F.adaptive_avg_pool2d(ones(1,1,4,4),-1)", r"adaptive_avg_pool2d: output_size must be"),
    ("F.adaptive_avg_pool2d(ones(4,4),2)", r"adaptive_avg_pool2d: expected input with 4"),
)


DTYPES = rows(
    DtypeError,
    ("t([True])-t([True])", r"sub: is not defined for bool.*\.to\('int64'\)"),
    ("t([1,2])**-1", r"pow: integers to a negative integer power.*float"),
    ("t([1,2]).add_(1.5)", r"add_: the result is float32 and cannot be stored in int64.*\.to\(\)"),
    ("lib.where(ones(2),ones(2),ones(2))", r"where: condition must be bool"),
    ("t([1,2]).mean()", r"mean: .*floating point dtypes only.*\.float\(\)"),
    ("lib.softmax(t([1,2]),dim=0)", r"softmax: is not defined for int64"),
    ("ones(2,3)@t([[1],[2],[3]])", r"matmul: expected both to have the same dtype.*\.to\("),
    ("F.conv2d(ones(1,3,8,8),ones(4,3,3,3).double())", r"conv2d: weight must have input's dtype"),
    ("ones(3).gather(0,t([0.]))", r"gather: index must be an integer tensor.*\.long\(\)"),
    ("ones(3).masked_fill(ones(3),1.0)", r"masked_fill: mask must be bool"),
    ("F.embedding(t([0.5]),ones(3,2))", r"embedding: indices must be int32 or int64.*\.long\(\)"),
    ("F.one_hot(t([0.5]),3)", r"one_hot: needs int64 classes.*\.long\(\)"),
    ("F.cross_entropy(ones(2,3),t([0.,1.]))", r"cross_entropy: classes must be integers.*\.long"),
    ("F.cross_entropy(ones(2,3),t([0.,nan]))", r"cross_entropy: classes must be integers"),
    ("F.binary_cross_entropy(t([nan]),t([1.0]))", r"binary_cross_entropy: .*between 0 and 1"),
    ("F.binary_cross_entropy(t([2.0]),t([1.0]))", r"binary_cross_entropy: .*with_logits"),
) + rows(
    DtypeError,
    ("ones(2)&ones(2)", r"bitwise_and: is not defined for float32.*integers"),
    ("ones(2)<<1", r"bitwise_left_shift: is not defined for float32.*integers"),
    ("ones(2).bitwise_not_()", r"bitwise_not_: is not defined for float32.*integers"),
    ("~ones(2)", r"bitwise_not: is not defined for float32.*integers"),
    parity=False,  # a TypeError there
)


RANGES = rows(
    RangeError,
    ("ones(2,3).sum(dim=2)", r"sum: dim 2 is out of range.*\[-2, 1\]"),
    ("zeros(0,3).max(dim=0)", r"max: input has length 0 along dim 0"),
    ("zeros(0).argmax()", r"argmax: there is no element"),
    ("lib.softmax(ones(2),dim=1)", r"softmax: dim 1 is out of range"),
    ("ones(2,3).permute(0,5)", r"permute: dim 5 is out of range"),
    ("ones(2,3).transpose(0,2)", r"transpose: dim 2 is out of range"),
    ("ones(2,3).unsqueeze(4)", r"unsqueeze: dim 4 is out of range"),
    ("lib.cat([ones(2),ones(2)],dim=1)", r"cat: dim 1 is out of range"),
    ("ones(2).norm(dim=4)", r"norm: dim 4 is out of range"),
    ("ones(2,3).max(dim=3)", r"max: dim 3 is out of range"),
    ("ones(2,3).cummax(3)", r"cummax: dim 3 is out of range"),
    ("ones(3).take(t([7]))", r"take: index 7 is out of range"),
    ("ones(2).flip(1)", r"flip: dim 1 is out of range"),
    ("ones(3)[3]", r"index: index 3 is out of range for dimension 0 with size 3"),
    ("ones(3)[0,0]", r"index: 2 indices for 1 dimensions"),
    ("ones(())[0]", r"index: 1 indices for 0 dimensions.*item\(\)"),
    ("ones(3)[t([3])]", r"index: index 3 is out of range"),
    ("ones(3)[t([0.5])]", r"index: .*integers or bool.*\.long\(\)"),
    ("ones(3)[1.5]", r"index: a float cannot be an index"),
    ("ones(3)[t([True,False])]", r"index: a mask of shape \(2,\)"),
    ("ones(3).__setitem__(5,1)", r"assignment: index 5 is out of range"),
    ("ones(3).__setitem__(t([7]),1)", r"assignment: index 7 is out of range"),
    ("ones(3).index_select(0,t([5]))", r"index_select: index 5 is out of range"),
    ("F.embedding(t([3]),ones(3,2))", r"embedding: index 3 is out of range for a table of 3 rows"),
    ("F.embedding(t([-1]),ones(3,2))", r"embedding: index -1 is out of range.*\[0, 2\]"),
    ("lib.nn.Embedding(3,2)(t([3]))", r"embedding: index 3.*in module Embedding\(3, 2\)"),
    ("F.cross_entropy(ones(2,3),t([0,3]))", r"cross_entropy: target 3 is out of range for 3"),
    ("F.cross_entropy(ones(2,3),t([0,-1]))", r"cross_entropy: target -1.*ignore_index=-100"),
    ("F.nll_loss(ones(2,3),t([0,5]))", r"nll_loss: target 5 is out of range"),
    ("lib.nn.Sequential(lib.nn.Flatten())[1]", r"Sequential: index 1 is out of range"),
)


VALUES = [
    *rows(
        RuntimeError,  # a place out of range is an IndexError too
        ("ones(3).gather(0,t([3]))", r"gather: index 3 is out of range.*\[0, 2\]"),
        ("zeros(3).scatter_add(0,t([7]),ones(1))", r"scatter_add: index 7 is out of range"),
        ("zeros(3).index_add(0,t([7]),ones(1))", r"index_add: index 7 is out of range"),
        ("zeros(3).scatter(0,t([-4]),ones(1))", r"scatter: index -4 is out of range"),
        ("lib.clamp(ones(2))", r"clamp: both min and max are missing"),
    ),
    *rows(
        ArgumentError,
        ("ones(3)[::-1]", r"index: a slice's step must be positive.*flip\(\)"),
        ("lib.tensor([[1,2],[3]])", r"tensor: a nested sequence has parts of unequal lengths"),
        ("lib.tensor(2**70)", r"tensor: an integer does not fit into 64 bits"),
        ("F.cross_entropy(ones(2,3),t([0,1,2]))", r"cross_entropy: a target of classes must have"),
        ("F.nll_loss(ones(2,3),t([0,1,2]))", r"nll_loss: a target of classes must have"),
        ("F.cross_entropy(ones(3),t([0,1]))", r"cross_entropy: a target of classes must have"),
        ("F.dropout(ones(2),p=1.5)", r"dropout: p must be between 0 and 1"),
        ("F.cross_entropy(ones(2,3),t([0,1]),reduction='no')", r"cross_entropy: 'no'.*'mean'"),
        ("F.mse_loss(ones(2),ones(2),reduction='no')", r"mse_loss: 'no' is not a valid value"),
        (
            "F.binary_cross_entropy_with_logits(ones(2),ones(3))",
            r"binary_cross_entropy_with_logits: .*same size.*squeeze",
        ),
        ("F.batch_norm(ones(1,3),None,None,training=True)", r"batch_norm: .*larger batch"),
        ("F.interpolate(ones(1,1,4,4))", r"interpolate: give either size or scale_factor"),
        ("lib.nn.Conv2d(3,4,3,groups=2)", r"Conv2d: in_channels must be divisible by groups"),
        ("lib.nn.GroupNorm(2,3)", r"GroupNorm: num_channels \(3\) must be divisible"),
        ("lib.nn.Dropout(2.0)", r"Dropout: .*between 0 and 1"),
        ("lib.nn.init.xavier_uniform_(ones(3))", r"init: .*fewer than 2 dimensions"),
        ("lib.nn.init.calculate_gain('no')", r"calculate_gain: unsupported nonlinearity 'no'"),
    ),
    *rows(
        ParameterError,
        ("lib.cat([])", r"cat: tensors is empty.*at least one"),
        ("lib.stack([])", r"stack: tensors is empty"),
        ("ones(2,3).sum(dim=(0,0))", r"sum: a dim occurs twice"),
        ("ones(2).topk(3)", r"topk: k must be in \[0, 2\]"),
        ("zeros(0).max()", r"max: input has no elements"),
        ("lib.tensor(300,dtype=lib.uint8)", r"tensor: 300 does not fit into uint8.*wider"),
        ("lib.tensor([1,70000],dtype=lib.int16)", r"tensor: 70000 does not fit into int16"),
        ("lib.arange(0,5,0)", r"arange: step must not be zero"),
        ("lib.arange(5,0,1)", r"arange: the bounds are not in the direction of step"),
        ("lib.randint(5,5,(2,))", r"randint: low must be less than high"),
        ("lib.multinomial(ones(3),5)", r"multinomial: cannot draw more samples.*replacement"),
        ("lib.bernoulli(t([2.0]))", r"bernoulli: a probability must be in \[0, 1\]"),
        ("lib.normal(0.0,-1.0,(2,))", r"normal: std must not be negative"),
        ("lib.device('nope')", r"device: unknown device 'nope'"),
        ("lib.device('cpu:')", r"device: 'cpu:' has no valid index"),
        ("ones(2).to('nope')", r"device: unknown device 'nope'"),
        ("F.batch_norm(ones(2,3),None,None)", r"batch_norm: .*evaluation mode.*training=True"),
    ),
]


TYPES = rows(
    ArgumentTypeError,
    ("ones(2)+'x'", r"add: an operand must be a tensor or a number, not str"),
    ("ones(2)+None", r"add: an operand must be a tensor or a number, not NoneType"),
    ("lib.exp(3.0)", r"exp: input must be a tensor, not float"),
    ("lib.exp([1.0])", r"exp: .*not list.*pyframe\.tensor"),
    ("F.dropout(ones(2),p='x')", r"dropout: p must be a number, not str"),
    ("F.dropout2d(ones(2,2,2,2),p=None)", r"dropout2d: p must be a number, not NoneType"),
    ("lib.nn.Dropout('x')", r"Dropout: p must be a number, not str"),
    ("lib.nn.Linear('a',2)", r"Linear: a size must be an integer, not str"),
    ("lib.nn.Linear(1.5,2)", r"Linear: a size must be an integer, not float"),
    ("lib.cat(3)", r"cat: tensors must be a sequence of tensors, not int"),
    ("lib.cat([ones(2),3])", r"cat: every one of tensors must be a tensor, not int"),
    ("F.conv2d(ones(1,3,8,8),3)", r"conv2d: weight must be a tensor, not int"),
    ("F.conv2d(ones(1,3,8,8),ones(4,3,3,3),stride=1.5)", r"conv2d: stride must be integers"),
    ("ones(2,3).sum(dim=1.5)", r"sum: dim must be an integer, not float"),
    ("ones(3)['a']", r"index: a str cannot be an index"),
    ("ones(3).__setitem__(0,'x')", r"assignment: cannot assign a str"),
    ("lib.tensor('x')", r"tensor: cannot make a tensor from text"),
    ("lib.tensor([1.5],dtype='no')", r"dtype: 'no' is not a dtype.*float32"),
    ("lib.from_numpy([1])", r"from_numpy: expected a NumPy array, not list"),
    ("lib.from_numpy(np.array(['a']))", r"from_numpy: NumPy dtype <U1 has no counterpart"),
    ("lib.from_numpy(np.zeros(2,object))", r"from_numpy: NumPy dtype object has no counterpart"),
    ("zeros(2.5)", r"zeros: a size must be integers"),
    ("lib.full((2,),'x')", r"full: expected a number, not str"),
    ("lib.arange('a')", r"arange: expected a number, not str"),
    ("ones(2).to(object())", r"to: expected a dtype, a device or a Tensor"),
    ("len(ones(()))", r"len: a 0-d tensor has no length"),
    ("iter(ones(()))", r"iter: cannot iterate over a 0-d tensor.*item\(\)"),
    ("lib.nn.Linear(3,2)('x')", r"linear: input must be a tensor, not str.*in module Linear"),
    ("lib.nn.Sequential(3)", r"int is not a Module"),
    ("lib.nn.Linear(2,2).load_state_dict([1])", r"load_state_dict: expected a mapping, not list"),
) + rows(
    ArgumentTypeError,
    ("lib.tensor(None)", r"tensor: cannot make a tensor from NoneType"),
    ("lib.tensor({1:2})", r"tensor: cannot make a tensor from dict"),
    ("lib.tensor([1,None])", r"tensor: cannot make a tensor from NoneType"),
    ("lib.as_tensor(object())", r"tensor: cannot make a tensor from object"),
    ("lib.tensor(1+2j)", r"tensor: NumPy dtype complex128 has no counterpart"),
    ("lib.manual_seed('x')", r"manual_seed: the seed must be an int"),
    parity=False,  # RuntimeError or ValueError there, or no error
)


STATES = rows(
    StateError,
    ("lib.nn.Linear(2,2).load_state_dict({})", r'for Linear:\s+Missing key.*"weight", "bias"'),
    (
        "lib.nn.Linear(2,2).load_state_dict({'weight':ones(2,2),'bias':ones(2),'x':ones(1)})",
        r'for Linear:\s+Unexpected key.*"x"',
    ),
    (
        "lib.nn.Linear(2,2).load_state_dict({'weight':ones(3,2),'bias':ones(2)})",
        r"size mismatch for weight: .*\[3, 2\].*\[2, 2\]",
    ),
    (
        "lib.optim.SGD([leaf(2)],lr=0.1).load_state_dict({})",
        r"^SGD\.load_state_dict: the state has no 'state' and no 'param_groups'.*state_dict\(\)",
    ),
    (
        "lib.optim.SGD([leaf(2)],lr=0.1).load_state_dict({'state':{},'param_groups':[{}]})",
        r"SGD\.load_state_dict: parameter group 0 has no 'params'",
    ),
    (
        "lib.nn.Linear(2,2).load_state_dict({'weight':'x','bias':ones(2)})",
        r"for weight: expected a Tensor or an array, not str",
    ),
)


OPTIMIZERS = [
    *rows(
        ArgumentError,
        ("lib.optim.SGD([],lr=0.1)", r"SGD: optimizer got an empty parameter list"),
        ("lib.optim.Adam(iter(()))", r"Adam: optimizer got an empty parameter list"),
        ("lib.optim.SGD([leaf(2)],lr=-1)", r"SGD: Invalid learning rate"),
        ("lib.optim.Adam([leaf(2)],lr=-1)", r"Adam: Invalid learning rate"),
        ("lib.optim.Adam([leaf(2)],betas=(1.0,0.9))", r"Adam: Invalid beta parameter at index 0"),
        ("lib.optim.AdamW([leaf(2)],weight_decay=-1)", r"AdamW: Invalid weight_decay"),
        ("lib.optim.SGD([leaf(2)],lr=0.1,momentum=-1)", r"SGD: Invalid momentum"),
        ("lib.optim.SGD([leaf(2)],lr=0.1,nesterov=True)", r"SGD: Nesterov momentum requires"),
        ("lib.optim.RMSprop([leaf(2)],alpha=-1)", r"RMSprop: Invalid alpha"),
        ("lib.optim.SGD([leaf(2)*2],lr=0.1)", r"SGD: can't optimize a non-leaf Tensor"),
        (
            "(lambda p: lib.optim.SGD([{'params':[p]},{'params':[p]}],lr=0.1))(leaf(2))",
            r"SGD: some parameters appear in more than one parameter group",
        ),
        (
            "lib.optim.SGD([leaf(2)],lr=0.1).load_state_dict({'state':{},'param_groups':[]})",
            r"SGD.load_state_dict: .*different number of parameter groups",
        ),
        (
            "lib.optim.SGD([leaf(2)],lr=0.1)"
            ".load_state_dict({'state':{},'param_groups':[{'params':[0,1]}]})",
            r"SGD.load_state_dict: parameter group 0 has 2 parameters",
        ),
    ),
    *rows(
        ArgumentTypeError,
        ("lib.optim.SGD(ones(2),lr=0.1)", r"SGD: params must be an iterable.*\[tensor\]"),
        ("lib.optim.SGD([leaf(2)],lr='x')", r"SGD: learning rate must be a number, not str"),
        ("lib.optim.SGD([leaf(2)],lr=None)", r"SGD: learning rate must be a number, not NoneType"),
        ("lib.optim.Adam([leaf(2)],lr=[])", r"Adam: learning rate must be a number, not list"),
        ("lib.optim.Adam([leaf(2)],betas=('x',0.9))", r"Adam: beta 0 must be a number, not str"),
        ("lib.optim.SGD([leaf(2)],lr=0.1,momentum='x')", r"SGD: momentum must be a number, not"),
        ("lib.optim.SGD([3],lr=0.1)", r"SGD: .*can only optimize Tensors"),
    ),
]


DATA = [
    *rows(
        ArgumentError,
        ("D.DataLoader([1,2],batch_size=0)", r"batch_size should be a positive integer"),
        ("D.DataLoader([1,2],num_workers=-1)", r"DataLoader: num_workers .*non-negative"),
        ("D.DataLoader([1,2],shuffle=True,sampler=[0])", r"DataLoader: .*mutually exclusive"),
        ("D.random_split([1,2,3],[1,1])", r"random_split: .*length of the dataset, 3"),
        ("D.RandomSampler([])", r"RandomSampler: num_samples should be a positive"),
    ),
    *rows(
        PyframeError,
        ("D.TensorDataset(ones(2),ones(3))", r"TensorDataset: size mismatch"),
        ("list(D.DataLoader([object()]))", r"default_collate: cannot put builtins.object"),
        ("list(D.DataLoader([ones(2),ones(3)],batch_size=2))", r"default_collate: sample 1 has"),
    ),
]


AUTOGRAD = [
    *rows(
        AutogradError,
        ("leaf(2).add_(1)", r"add_: a leaf that requires grad.*no_grad\(\).*clone\(\)"),
        ("leaf(2).backward()", r"backward: .*only for a single number.*\.sum\(\)"),
        ("ones(()).backward()", r"backward: the tensor does not require grad.*requires_grad"),
        ("(lambda y: [y.backward(), y.backward()])((leaf(2)*leaf(2)).sum())", r"retain_graph=True"),
        ("lib.autograd.grad(leaf(2).sum(),leaf(2))", r"grad: .*do not depend on input 0.*allow_un"),
        ("lib.autograd.grad(leaf(2).sum(),ones(2))", r"grad: input 0 does not require grad"),
        ("lib.autograd.grad([],[leaf(2)])", r"grad: there are no outputs"),
        ("t([1,2],requires_grad=True)", r"only floating point tensors can require gradients"),
        ("(leaf(2)*1).requires_grad_(False)", r"requires_grad_: only a leaf's.*detach\(\)"),
        ("leaf(2).numpy()", r"numpy: .*requires grad.*detach\(\)\.numpy\(\)"),
        ("ones(2).register_hook(print)", r"register_hook: the tensor does not require grad"),
        ("leaf(2).__setitem__(0,1)", r"assignment: a view of a leaf that requires grad"),
        ("lib.nn.Parameter(t([1,2]))", r"Parameter: only floating point.*requires_grad=False"),
        (
            "(lambda x: (lambda y: [x.add_(1), y.sum().backward()])(x*x))(leaf(2)*1)",
            r"mul: backward needs .*in-place operation.*clone\(\)",
        ),
        (
            "(lambda y: [y.register_hook(lambda g: ones(3)), y.sum().backward()])(leaf(2)*2)",
            r"hook: the returned gradient has another shape",
        ),
    ),
    *rows(
        ShapeError,
        ("(leaf(2)*2).backward(ones(3))", r"backward: the cotangent has another shape"),
    ),
    *rows(
        ArgumentTypeError,
        ("(leaf(2)*2).backward(3)", r"backward: a cotangent must be a Tensor, not int"),
        ("lib.autograd.grad(leaf(2).sum(),3)", r"grad: input 0 must be a Tensor, not int"),
        ("lib.autograd.backward(3)", r"backward: an output must be a Tensor, not int"),
        ("lib.autograd.functional.jacobian(lambda x: 3,ones(2))", r"must return Tensors, not int"),
    ),
]


TABLE = [
    *SHAPES, *CONVOLUTION, *DTYPES, *RANGES, *VALUES, *TYPES, *STATES, *OPTIMIZERS, *DATA,
    *AUTOGRAD,
]  # fmt: skip
