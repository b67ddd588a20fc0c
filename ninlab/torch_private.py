"""Which names does ninlab use that torch keeps to itself?

Torch's C++ side tells what no public function does: which autograd node runs, how many hold a
storage, which call of an operator only calls others. Every such name stands here, under a name
of ninlab's own that says what it means, and no other module uses one. `check` says what a torch
lacks before anything is counted.

Known limits. All names were looked up in the versions `LOOKED_UP`, and mean the same in all of
them; a name that another version keeps and gives another meaning is not noticed here. Some names
`check` does not ask for: a torch without the two that are imported below fails on import; what
fields a node keeps beside a result, what a finished profile holds and what ``torch.compile`` makes
show only in use. What fvcore keeps to itself, `resources.operators` uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from operator import attrgetter
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch._ops import OpOverload as OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from ninlab.errors import NinlabError

LOOKED_UP = ("2.10", "2.11", "2.15")
"""The versions of torch that all names were looked up in."""

_needed: list[str] = []
_needed_of_nodes: list[str] = []


def _of_torch(path: str) -> Any:
    """What torch has under that path, which `check` asks for again; None where it has nothing."""
    _needed.append(path)
    return _found(path)


def _found(path: str) -> Any:
    try:
        return attrgetter(path)(torch)
    except AttributeError:
        return None


def _of_each(path: str, example: str) -> Callable[[Any], Any]:
    """Reads that attribute; `check` asks the example for it, a class or an object of torch."""
    _needed.append(f"{example}.{path}")
    return attrgetter(path)


def _of_nodes(name: str) -> str:
    """The name of an attribute of autograd's nodes, which `check` asks one of relu for."""
    _needed_of_nodes.append(name)
    return name


@cache
def check() -> None:
    """Raises NinlabError where this torch lacks a name that counting or tracing needs."""
    missing = [f"torch.{path}" for path in _needed if _found(path) is None]
    with torch.inference_mode(False):  # and with gradients
        node = type(torch.ones(1, device="cpu", requires_grad=True).relu().grad_fn)
    missing += [
        f"torch.Tensor.grad_fn.{name}" for name in _needed_of_nodes if not hasattr(node, name)
    ]
    if missing:
        raise NinlabError(
            f"torch {torch.__version__} lacks {', '.join(missing)}, which ninlab needs to follow "
            f"a step; install torch {' or '.join(LOOKED_UP)}"
        )


# ---------------------------------------------------------------- operators

product_bias_relu: Callable[[Tensor, Tensor, Tensor], Tensor] = _of_torch("_addmm_activation")
"""relu(bias + rows @ weight) of (bias, rows, weight), by one product with an epilogue on CUDA."""


class DispatchMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operator that runs while it is entered, in ``__torch_dispatch__``.

    Its methods do what torch's do, and have the types that torch's lack.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def __init_subclass__(cls) -> None:
        """Nothing more than torch does."""
        super().__init_subclass__()  # type: ignore[no-untyped-call]

    def __enter__(self) -> Self:
        """Begin to see."""
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        """See no more."""
        super().__exit__(*exception)  # type: ignore[no-untyped-call]


_AN_OPERATOR = "ops.aten.relu.default"

schema_of: Callable[[OpOverload], Any] = _of_each("_schema", _AN_OPERATOR)
"""The signature of an operator: its name, arguments and returns."""

qualified_name: Callable[[OpOverload], str] = _of_each("_schema.name", _AN_OPERATOR)
"""The operator's name with its namespace, without overload: ``aten::convolution``."""

packet_of: Callable[[OpOverload], Any] = _of_each("_overloadpacket", _AN_OPERATOR)
"""All overloads of the operator's name, as torch's flop counter knows them."""

_can_decompose: Callable[[OpOverload], Callable[[], bool]] = _of_each(
    "_can_decompose", _AN_OPERATOR
)


def is_composite(operator: OpOverload) -> bool:
    """Whether the operator only calls others, in C++ or by a decomposition in Python.

    `has_kernel` for ``CompositeImplicitAutograd`` is the first half of that. Upsampling to the
    nearest neighbor and ``aten::native_batch_norm`` have kernels of their own, and a decomposition
    that a `DispatchMode` may take in their place: true here, false there.
    """
    return bool(_can_decompose(operator)())


_has_kernels = _of_torch("_C._dispatch_has_kernel")
_has_kernel_for = _of_torch("_C._dispatch_has_kernel_for_dispatch_key")


def has_kernel(operator: str, key: str) -> bool:
    """Whether an operator, ``aten::std.correction``, has a kernel of its own for a dispatch key.

    False for a name that no operator has. Kernels in Python do not count: `is_composite` counts
    them.
    """
    return bool(_has_kernels(operator) and _has_kernel_for(operator, key))


@cache
def is_whole(operator: str) -> bool:
    """Whether an operator, such as ``aten::sum.dim_IntList``, is more than calls of others.

    What it calls inside is then its own affair. False for a name that no operator has.
    """
    return bool(_has_kernels(operator)) and not has_kernel(operator, "CompositeImplicitAutograd")


suggested_format: Callable[[Tensor], torch.memory_format] = _of_torch(
    "_prims_common.suggest_memory_format"
)
"""The memory format that ATen takes a tensor of these strides to have."""


# ---------------------------------------------------------------- a spare dispatch key

SPARE_KEY = "AutocastIPU"
"""A dispatch key above autograd, of a device that no CPU or CUDA build of torch knows."""

_key = _of_torch(f"_C.DispatchKey.{SPARE_KEY}")
_KeySet = _of_torch("_C.DispatchKeySet")
_Guard = _of_torch("_C._ExcludeDispatchKeyGuard")
_is_excluded = _of_torch("_C._dispatch_tls_is_dispatch_key_excluded")
_set_excluded = _of_torch("_C._dispatch_tls_set_dispatch_key_excluded")
_set_included = _of_torch("_C._dispatch_tls_set_dispatch_key_included")


@contextmanager
def spare_key_included() -> Iterator[None]:
    """Operators of this thread meet the kernels of `SPARE_KEY` inside the block."""
    excluded = _is_excluded(_key)
    _set_excluded(_key, False)
    _set_included(_key, True)
    try:
        yield
    finally:
        _set_included(_key, False)
        _set_excluded(_key, excluded)


def below_spare_key() -> AbstractContextManager[None]:
    """Operators of this thread pass its kernels by inside the block, as a kernel's own calls do."""
    guard: AbstractContextManager[None] = _Guard(_key_set())
    return guard


@cache
def _key_set() -> Any:
    return _KeySet(_key)


# ---------------------------------------------------------------- tensors and storages

storage_key: Callable[[torch.UntypedStorage], int] = _of_each("_cdata", "UntypedStorage")
"""The same number for every Python object of one storage, and for no other living storage."""

is_view: Callable[[Tensor], bool] = _of_torch("Tensor._is_view")
"""Whether the tensor is a view of another one, as autograd has it."""

_tensor_uses = _of_torch("Tensor._use_count")
_storage_uses = _of_torch("_C._storage_Use_Count")


def reference_counts(tensor: Tensor) -> tuple[int, int]:
    """How many hold the tensor, and how many its storage, on torch's C++ side."""
    return _tensor_uses(tensor), _storage_uses(storage_key(tensor.untyped_storage()))


_hooks = _of_each("_backward_hooks", "Tensor")
_late_hooks = _of_each("_post_accumulate_grad_hooks", "Tensor")


def has_gradient_hooks(parameter: Tensor) -> bool:
    """Whether something is called when the parameter's gradient has come."""
    return bool(_hooks(parameter) or _late_hooks(parameter))


# ---------------------------------------------------------------- autograd

running_node: Callable[[], Any] = _of_torch("_C._current_autograd_node")
"""The node that the engine runs in this thread, or None outside a backward pass."""

nodes_made: Callable[[], int] = _of_torch("_C._autograd._get_sequence_nr")
"""How many nodes this thread has made: the `number_of` the next one."""

_hooks_on_top = _of_torch("_C._autograd._top_saved_tensors_default_hooks")
_SAVED = "_saved_"
_NUMBER = _of_nodes("_sequence_nr")
_of_nodes(f"{_SAVED}result")


def number_of(node: Any) -> int:
    """The node's number among those of its thread, in order of making."""
    number: int = getattr(node, _NUMBER)()
    return number


def are_saved_tensors_hooked() -> bool:
    """Whether what autograd saves now goes through hooks, such as those of a checkpoint."""
    return _hooks_on_top(True) is not None


@cache
def saved_fields(node_type: Any) -> Mapping[str, str]:
    """What nodes of that type keep: attributes by the names of the derivative formula's fields.

    Inputs come before results, as they come to be.
    """
    names = [name for name in dir(node_type) if name.startswith(_SAVED)]
    fields = {name.removeprefix(_SAVED): name for name in names}
    return dict(sorted(fields.items(), key=lambda field: field[0].startswith("result")))


# ---------------------------------------------------------------- modules


def uncompiled(module: nn.Module) -> nn.Module:
    """The module that ``torch.compile`` wrapped, or the module itself."""
    original = module._modules.get("_orig_mod")  # which asks no __getattr__ of others
    return module if original is None else original


# ---------------------------------------------------------------- the profiler

_Configuration = _of_torch("_C._profiler._ExperimentalConfig")
_KINETO_EVENT, _RESULT = "_C._autograd._KinetoEvent", "_C._autograd._ProfilerResult"
_correlation_id = _of_each("correlation_id", _KINETO_EVENT)
_overload_name = _of_each("overload_name", _KINETO_EVENT)
_events = _of_each("events", _RESULT)
_event_tree = _of_each("experimental_event_tree", _RESULT)


def profile_of_the_cpu() -> torch.profiler.profile:
    """A profiler of operators and of the CPU's memory, to be read with `operator_calls`."""
    return torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU],
        profile_memory=True,
        experimental_config=_Configuration(capture_overload_names=True),
    )


def profile_of_operators(*, on_gpu: bool) -> torch.profiler.profile:
    """A profiler of operators, which names their overloads, and on a GPU of kernels."""
    of_cuda = [torch.profiler.ProfilerActivity.CUDA] if on_gpu else []
    return torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU, *of_cuda],
        experimental_config=_Configuration(capture_overload_names=True),
    )


@contextmanager
def seen_by_profilers(namespace: str) -> Iterator[None]:
    """Inside the block every call of that namespace's operators is an event of a profiler.

    torch 2.15 calls operators that are defined in Python, and return nothing but tensors, past the
    dispatcher that profilers watch. Older ones know no way past it.
    """
    known = getattr(torch.ops, namespace)
    packets = [getattr(known, name) for name in known]
    overloads = [getattr(packet, name) for packet in packets for name in packet.overloads()]
    unseen = [one for one in overloads if getattr(one, "_pyobj_dispatcher", None) is not None]
    for one in unseen:
        one._enable_pyobj_dispatch(False)
    try:
        yield
    finally:
        for one in unseen:
            one._enable_pyobj_dispatch(True)


def events_of(profile: torch.profiler.profile) -> tuple[Sequence[Any], Mapping[int, str]]:
    """The trees of what was profiled, and the operators in them by the event's correlation_id.

    An operator comes with its overload: ``aten::std.correction``. An event that allocates or
    releases memory is called ``[memory]``.
    """
    profiler: Any = profile.profiler
    results = profiler.kineto_results
    operators = {
        _correlation_id(event)(): f"{event.name()}.{_overload_name(event)()}".rstrip(".")
        for event in _events(results)()
        if event.name().startswith("aten::")
    }
    return _event_tree(results)(), operators


# ---------------------------------------------------------------- only where CUDA is
# `check` does not ask for these: a build for the CPU lacks some, and they were added over time.


def clear_cublas_workspaces() -> None:
    """Give the allocator back what handles of cuBLAS keep; the next product takes it again."""
    torch._C._cuda_clearCublasWorkspaces()


def record_memory_history(*, on: bool) -> None:
    """Let the CUDA allocator write down what it does, or stop that and forget what it wrote."""
    memory: Any = torch.cuda.memory
    if on:
        memory._record_memory_history(
            enabled="all", context="alloc", stacks="all", max_entries=1_000_000
        )
    else:
        memory._record_memory_history(enabled=None)


def memory_history(device: torch.device) -> Sequence[Mapping[str, Any]]:
    """What the allocator of the current device wrote down so far, an entry each."""
    memory: Any = torch.cuda.memory
    entries: Sequence[Mapping[str, Any]] = memory._snapshot(device)["device_traces"][
        torch.cuda.current_device()
    ]
    return entries


def is_cache_emptied_between_trials() -> bool:
    """Whether the allocator gives back what is free when cuDNN has tried a convolution's kernels.

    True where torch does not let one choose.
    """
    return bool(getattr(torch._C, "_cuda_get_conv_benchmark_empty_cache", lambda: True)())


def empty_cache_between_trials(empties: bool) -> None:
    """Let the allocator do so, or not; where torch does not let one choose, nothing changes."""
    set_it = getattr(torch._C, "_cudnn_set_conv_benchmark_empty_cache", None)
    if set_it is not None:
        set_it(empties)
