"""What torch keeps to itself is used in one module, which says what a torch lacks."""

import ast
from functools import partial
from pathlib import Path

import pytest
import torch

import ninlab
from ninlab import torch_private
from ninlab.errors import NinlabError
from ninlab.measurement.cpu import recorded
from ninlab.resources import count, load, trace_step
from ninlab.resources.cuda import as_on_cuda
from tests.processes import run

PACKAGE = Path(ninlab.__file__).parent
ROOM = PACKAGE / "torch_private.py"
OTHERS = sorted({*PACKAGE.rglob("*.py"), Path(__file__).with_name("cpu_step.py")} - {ROOM})
NAMED_TUPLES = {"_asdict", "_fields", "_make", "_replace"}
PUBLIC = {"os._exit"}
"""Private by their looks alone: Python's manual documents them."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def given_here(tree: ast.AST) -> set[str]:
    """Private names that a file gives to what it defines itself."""
    names = {node.name for node in ast.walk(tree) if hasattr(node, "name")}
    stored = {
        node.attr if isinstance(node, ast.Attribute) else node.id
        for node in ast.walk(tree)
        if isinstance(getattr(node, "ctx", None), ast.Store)
        and isinstance(node, ast.Attribute | ast.Name)
    }
    return names | stored | NAMED_TUPLES


def private_names(source: str) -> set[str]:
    """What a file uses that its maker, such as torch, calls private; ATen operators have no maker.

    Strings count where they name an attribute.
    """
    tree = ast.parse(source)
    own, found = given_here(tree), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            names = [f"{module}.{alias.name}" for alias in node.names]
            found |= {
                name
                for name in names
                if name.lstrip(".").startswith("torch") and any(map(is_private, name.split(".")))
            }
        elif isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own:
            if not ast.unparse(node.value).endswith("aten") and ast.unparse(node) not in PUBLIC:
                found.add(ast.unparse(node))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "hasattr"):
            name = node.args[1]
            if isinstance(name, ast.Constant) and is_private(str(name.value)):
                found.add(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", OTHERS, ids=[path.name for path in OTHERS])
def test_no_other_module_uses_a_private_name_of_anybody_else(path):
    assert private_names(path.read_text(encoding="utf-8")) == set()


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch._C._get_tracing_state()",
        "from torch._ops import OpOverload",
        "from torch.utils._python_dispatch import TorchDispatchMode",
        "from torch.library import _del_library",
        "import torch._prims_common as prims",
        "def key(storage):\n    return storage._cdata",
        "getattr(module, '_orig_mod', None)",
    ],
)
def test_a_private_name_is_found_however_it_is_used(source):
    assert private_names(source)


def test_importing_registers_no_kernel_and_the_first_step_on_cuda_does():
    printed = run("""
        import ninlab.resources, ninlab.measurement
        from ninlab.resources.cuda import as_on_cuda
        from ninlab.torch_private import SPARE_KEY, has_kernel
        before = has_kernel("aten::dropout", SPARE_KEY)
        with as_on_cuda():
            pass
        print(before, has_kernel("aten::dropout", SPARE_KEY))
    """)
    assert printed.split() == ["False", "True"]


def test_kernels_are_met_inside_the_block_only():
    images, train = torch.ones(2, 3, device="meta", requires_grad=True), 0.5
    with as_on_cuda():
        inside = torch.dropout(images, train, True)
    outside = torch.dropout(images, train, True)
    assert [each.grad_fn.name() for each in (inside, outside)] == [
        "NativeDropoutBackward0",
        "MulBackward0",
    ]


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        ("_C._storage_Use_Count", torch._C),
        ("_C._autograd._get_sequence_nr", torch._C._autograd),
        ("_C._ExcludeDispatchKeyGuard", torch._C),
        ("_prims_common.suggest_memory_format", torch._prims_common),
        ("_C._autograd._KinetoEvent.overload_name", torch._C._autograd._KinetoEvent),
        (
            "_C._autograd._ProfilerResult.experimental_event_tree",
            torch._C._autograd._ProfilerResult,
        ),
    ],
)
def test_a_torch_that_lacks_a_name_is_refused_by_its_version(monkeypatch, path, owner):
    subject = load("lenet")
    monkeypatch.delattr(owner, path.rpartition(".")[2])
    for use in (count, partial(trace_step, batch_size=2), lambda _: recorded().__enter__()):
        torch_private.check.cache_clear()
        with pytest.raises(NinlabError) as refused:
            use(subject)
        assert str(refused.value).startswith(f"torch {torch.__version__} lacks torch.{path}, ")


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_torch_whose_nodes_do_not_say_what_they_keep_is_refused(monkeypatch, mode):
    with mode():
        torch_private.check.cache_clear()
        torch_private.check()
        monkeypatch.setattr(torch.Tensor, "relu", torch.Tensor.neg)  # which keeps nothing
        torch_private.check.cache_clear()
        with pytest.raises(NinlabError, match=r"lacks torch\.Tensor\.grad_fn\._saved_result, "):
            torch_private.check()


def test_a_refused_torch_is_answered_with_the_versions_that_were_looked_up(monkeypatch):
    monkeypatch.delattr(torch._C, "_storage_Use_Count")
    torch_private.check.cache_clear()
    with pytest.raises(NinlabError) as refused:
        torch_private.check()
    assert all(version in str(refused.value) for version in torch_private.LOOKED_UP)


@pytest.mark.parametrize(
    ("operator", "in_cpp", "at_all"),
    [
        (torch.ops.aten.linear.default, True, True),
        (torch.ops.aten.upsample_nearest2d.default, False, True),
        (torch.ops.aten.relu.default, False, False),
    ],
)
def test_an_operator_may_call_others_in_python_alone(operator, in_cpp, at_all):
    name = operator.name()
    assert torch_private.has_kernel(name, "CompositeImplicitAutograd") is in_cpp
    assert torch_private.is_composite(operator) is at_all


def test_all_that_a_torch_lacks_is_named_at_once(monkeypatch):
    monkeypatch.delattr(torch._C, "_storage_Use_Count")
    monkeypatch.delattr(torch._C, "_current_autograd_node")
    torch_private.check.cache_clear()
    with pytest.raises(NinlabError, match=r"_storage_Use_Count, torch\._C\._current_autograd_node"):
        torch_private.check()
