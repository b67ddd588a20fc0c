"""Files of strangers on the command line: each is counted right, or refused in one sentence."""

import json
import os
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent, indent

import pytest
import torch
from torch import nn

from ninlab.__main__ import main
from ninlab.errors import NinlabError, ShapeError
from ninlab.resources import load, profile

INPUT = "3x4x4"
LONGEST_SENTENCE = 300  # characters

HEAD = "import os, sys, torch\nfrom torch import nn\n"
CLASS = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
{init}
    def forward(self, images):
{forward}
        return self.linear(images)
{methods}
"""


def network(init="", forward="", methods="", before=""):
    """A file with a linear layer in it, and whatever else is asked for."""
    parts = {"init": (init, 8), "forward": (forward, 8), "methods": (methods, 4)}
    filled = {name: indent(dedent(text), " " * depth) for name, (text, depth) in parts.items()}
    return HEAD + dedent(before) + CLASS.format(**filled)


def method(name, body):
    return network(methods=f"def {name}(self, *_, **__):\n    {body}")


PLAIN = network()


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path, monkeypatch):
    """Each test leaves the process as it found it, whatever the strangers did."""
    monkeypatch.chdir(tmp_path)
    before = state_of_the_process()
    yield
    assert state_of_the_process() == before


def state_of_the_process():
    return {
        "folder": Path.cwd(),
        "arguments": sys.argv,
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradients": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "anomalies": torch.is_anomaly_enabled(),
    }


@pytest.fixture
def asked(capfd):
    """Exit code, stdout and stderr of ``resources`` for networks, on small images."""

    def run(*arguments):
        code = main(["resources", *arguments, "--input", INPUT, "--batch-size", "2"])
        return (code, *capfd.readouterr())

    return run


@pytest.fixture
def answered(asked):
    """The answers without the networks' names."""

    def run(*references):
        code, out, _ = asked(*references, "--format", "json")
        assert code == 0
        found = json.loads(out)["networks"]
        assert [each.pop("network") for each in found] == [*references]
        return found

    return run


def written(source, path="net.py"):
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(source if isinstance(source, bytes) else source.encode())


def refused(result):
    """The one sentence of a refusal, which is the last line of stderr."""
    code, out, err = result
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    (sentence,) = (line for line in err.splitlines() if line.startswith("error: "))
    assert err.endswith(f"{sentence}\n")
    assert len(sentence) <= len("error: ") + LONGEST_SENTENCE
    return sentence


# ---------------------------------------------------------------- whatever ends the process

EXITS = {
    "sys.exit(0)": ("sys.exit(0)", "SystemExit: 0"),
    "exit()": ("exit()", "SystemExit: None"),
    "a text": ("sys.exit('usage: net.py DATA')", "SystemExit: usage: net.py DATA"),
    "generator": ("raise GeneratorExit", "GeneratorExit"),
    "cancelled": ("import asyncio; raise asyncio.CancelledError", "CancelledError"),
    "of its own": ("raise type('Stop', (BaseException,), {})('now')", "Stop: now"),
    "in a group": ("raise BaseExceptionGroup('two', [SystemExit(0)])", "BaseExceptionGroup: two"),
}
END = "sys.exit(0)"
PLACES = {
    "import": HEAD + END,
    "factory": f"{HEAD}def Net():\n    {END}\n",
    "attribute of the file": f"{HEAD}def __getattr__(name):\n    {END}\n",
    "names of the file": f"{HEAD}def __dir__():\n    {END}\n",
    "constructor": network(init=END),
    "metaclass": (
        f"{HEAD}class Meta(type):\n    def __call__(cls):\n        {END}\n"
        "class Net(nn.Module, metaclass=Meta): pass\n"
    ),
    "forward": network(forward=END),
    "forward in training": network(forward=f"if self.training: {END}"),
    "forward with gradients": network(forward=f"if torch.is_grad_enabled(): {END}"),
    "forward while counted": network(forward=f"if torch.is_inference_mode_enabled(): {END}"),
    "hook": network(init=f"def hook(*_): {END}\nself.linear.register_forward_hook(hook)"),
    "hook before": network(init=f"def hook(*_): {END}\nself.register_forward_pre_hook(hook)"),
    "backward": (
        f"{HEAD}class Ends(torch.autograd.Function):\n"
        "    @staticmethod\n    def forward(ctx, x): return x.clone()\n"
        f"    @staticmethod\n    def backward(ctx, grad): {END}\n"
        "class Net(nn.Linear):\n    def __init__(self): super().__init__(4, 4)\n"
        "    def forward(self, images): return Ends.apply(super().forward(images))\n"
    ),
    "output": (
        f"{HEAD}class Output(tuple):\n    def __iter__(self): {END}\n"
        "    def __getitem__(self, place): return self\n"
        "class Net(nn.Linear):\n    def __init__(self): super().__init__(4, 4)\n"
        "    def forward(self, images): return Output([super().forward(images)])\n"
    ),
    "setting the mode": network(
        methods="def __setattr__(self, name, value):\n"
        f"    if name == 'training' and 'linear' in self._modules: {END}\n"
        "    super().__setattr__(name, value)"
    ),
    "class": network(methods=f"@property\ndef __class__(self): {END}"),
} | {
    name: method(name, END)
    for name in (
        "__call__", "__deepcopy__", "__getattr__", "__getstate__", "__hash__", "__reduce_ex__",
        "__setstate__", "buffers", "modules", "named_modules", "named_parameters", "parameters",
        "train",
    )
}  # fmt: skip


@pytest.mark.parametrize("source", PLACES.values(), ids=PLACES)
def test_wherever_a_network_ends_the_process_the_command_says_so(source, asked):
    written(source)
    said = refused(asked("net.py:Net"))
    assert "net.py:Net ended itself by SystemExit: 0" in said
    assert "of net.py); leave that out" in said


@pytest.mark.parametrize(("statement", "says"), EXITS.values(), ids=EXITS)
def test_however_a_network_ends_the_process_the_command_says_so(statement, says, asked):
    written(network(forward=statement))
    said = refused(asked("net.py:Net"))
    assert f"net.py:Net ended itself by {says}" in said
    assert "(forward, line " in said


def test_what_ended_the_process_is_the_cause_of_the_error():
    class Ending(nn.Linear):
        def forward(self, images):
            raise SystemExit(0)

    with pytest.raises(NinlabError, match=r"Ending ended itself by SystemExit: 0") as raised:
        profile(Ending(4, 4), (4,))
    assert isinstance(raised.value.__cause__, SystemExit)


@pytest.mark.parametrize("place", ["import", "factory", "forward", "backward", "__deepcopy__"])
def test_an_interruption_at_the_keyboard_stays_one(place, asked):
    written(PLACES[place].replace(END, "raise KeyboardInterrupt"))
    code, out, _ = asked("net.py:Net")
    assert (code, out) == (130, "")
    with pytest.raises(KeyboardInterrupt):
        profile("net.py:Net", (3, 4, 4))


# ---------------------------------------------------------------- what is counted as if plain

STRANGE_BUT_COUNTED = {
    "no factory but a module": f"{PLAIN}\nNet = Net()\n",
    "a partial": f"{PLAIN}\nimport functools\nNet = functools.partial(Net)\n",
    "a byte order mark": b"\xef\xbb\xbf" + PLAIN.encode(),
    "latin-1": b"# -*- coding: latin-1 -*-\n# caf\xe9\n" + PLAIN.encode(),
    "line ends of Windows": PLAIN.replace("\n", "\r\n").encode(),
    "a main program": f"{PLAIN}\nif __name__ == '__main__':\n    sys.exit(3)\n",
    "a command line": (
        "import argparse\nparser = argparse.ArgumentParser()\n"
        f"parser.add_argument('--depth', type=int, default=3)\nparser.parse_args()\n{PLAIN}"
    ),
    "another folder": network(before="os.chdir('/')"),
    "another folder in its constructor": network(init="os.chdir('/')"),
    "a folder that is gone": network(before="os.mkdir('x')\nos.chdir('x')\nos.rmdir('../x')"),
    "another folder in forward": network(forward="os.chdir('/')"),
    "no gradients": network(before="torch.set_grad_enabled(False)"),
    "inference mode": network(before="torch.inference_mode().__enter__()"),
    "detects anomalies": network(before="torch.autograd.set_detect_anomaly(True, False)"),
    "default device": network(before="torch.set_default_device('cuda')"),
    "default dtype of later": network(init="torch.set_default_dtype(torch.float64)"),
    "prints itself": network(forward="print(self, images)"),
    "no stdout": network(before="sys.stdout = None"),
    "replaces the streams": network(before="import io\nsys.stdout = sys.stderr = io.StringIO()"),
    "__repr__": method("__repr__", "raise ValueError('no')"),
    "__str__": method("__str__", "raise ValueError('no')"),
    "__len__": method("__len__", "raise ValueError('no')"),
    "__bool__": method("__bool__", "raise ValueError('no')"),
    "__dir__": method("__dir__", "raise ValueError('no')"),
    "__eq__": network(
        methods="__hash__ = nn.Module.__hash__\ndef __eq__(self, _): raise ValueError"
    ),
    "_orig_mod": network(methods="@property\ndef _orig_mod(self): raise ValueError('no')"),
    "another class, it says": network(methods="@property\ndef __class__(self): return int"),
    "itself": network(init="import weakref\nself.itself = weakref.ref(self)"),
    "nothing registered": network(
        init="self.register_parameter('none', None)\nself.register_module('zero', None)"
    ),
    "a loss of its own": network(init="self.loss = nn.CrossEntropyLoss()"),
    "its copy is numbered": network(
        init="self.copies = 0",
        methods="def __setstate__(self, state):\n    super().__setstate__(state)\n"
        "    self.copies += 1",
    ),
}


@pytest.fixture(scope="module")
def plain_answer():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(4, 4)

        def forward(self, images):
            return self.linear(images)

    answer = json.loads(json.dumps(profile(Net(), (3, 4, 4), batch_size=2).to_json()))
    assert answer.pop("network") == "Net"
    return answer


@pytest.mark.parametrize("source", STRANGE_BUT_COUNTED.values(), ids=STRANGE_BUT_COUNTED)
def test_what_a_network_does_beside_computing_changes_no_number(source, answered, plain_answer):
    written(source)
    assert answered("net.py:Net") == [plain_answer]


@pytest.mark.parametrize(
    "used",
    [
        "True",
        "self.training",
        "not self.training",
        "torch.is_grad_enabled()",
    ],
)
def test_a_lazy_layer_costs_what_it_costs_with_its_shape(used, answered):
    forward = f"if {used}:\n    images = images + self.extra(images)"
    written(network(init="self.extra = nn.LazyLinear(4)", forward=forward), "lazy.py")
    written(network(init="self.extra = nn.Linear(4, 4)", forward=forward))
    lazy, shaped = answered("lazy.py:Net", "net.py:Net")
    assert lazy == shaped


AMBIENT = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "anomalies": lambda: torch.autograd.set_detect_anomaly(True, False),
    "meta": lambda: torch.device("meta"),
    "float64": lambda: _default_dtype(torch.float64),
}


@contextmanager
def _default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.mark.parametrize("ambient", AMBIENT.values(), ids=AMBIENT)
def test_what_a_caller_has_switched_on_or_off_changes_no_number(ambient):
    norm = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    asked = [("nin_28", None), (norm, (1, 8, 8))]
    plain = [profile(*each, batch_size=2, optimizer="adam") for each in asked]
    with ambient():
        assert [profile(*each, batch_size=2, optimizer="adam") for each in asked] == plain


# ---------------------------------------------------------------- files and what lies beside them


@pytest.mark.parametrize("path", [
    "net.py", "./net.py", "a:b.py", "C:/models/net.py", "C:\\models\\net.py", "[/b]/net.py",
    "my net.v2.py", "random.py", "torch.py", "ninlab.py", "café.py",
])  # fmt: skip
def test_a_path_goes_up_to_the_last_colon_whatever_it_is_called(path, answered, plain_answer):
    written(PLAIN, path)
    assert answered(f"{path}:Net") == [plain_answer]
    assert answered(str(Path(path).resolve()) + ":Net") == [plain_answer]


def test_a_file_imports_what_lies_beside_it_and_no_namesake_beside_another(answered):
    for folder, outputs in (("one", 4), ("two", 5)):
        written(
            f"from torch import nn\ndef layer(): return nn.Linear(4, {outputs})",
            f"{folder}/parts.py",
        )
        written("from parts import layer as Net", f"{folder}/net.py")
    parameters = [
        each["parameters"]
        for each in answered("one/net.py:Net", "two/net.py:Net", "one/net.py:Net")
    ]
    assert parameters == [20, 25, 20]


def test_a_forward_pass_imports_what_lies_beside_its_file(answered, plain_answer):
    written("def same(images): return images", "helpers.py")
    written(network(forward="import helpers\nimages = helpers.same(images)"))
    assert answered("net.py:Net") == [plain_answer]


def test_what_lies_beside_a_file_hides_nothing_of_pythons_own(answered, plain_answer):
    written("raise ValueError", "statistics.py")
    written(network(before="sys.modules.pop('statistics', None)", forward="import statistics"))
    assert answered("net.py:Net") == [plain_answer]


def test_a_network_is_imported_and_built_once_a_call(asked):
    written(network(
        before="open('log', 'a').write('imported ')", init="open('log', 'a').write('built ')"
    ))  # fmt: skip
    code, _, _ = asked("net.py:Net", "--batches", "1,2", "--fit", "1GiB", "--by", "layer")
    assert code == 0
    assert Path("log").read_text() == "imported built "


def test_a_loaded_network_costs_what_it_costs_by_name_and_keeps_its_input(plain_answer):
    written(PLAIN)
    subject = load("net.py:Net", (3, 4, 4))
    assert profile(subject, batch_size=2) == profile("net.py:Net", (3, 4, 4), batch_size=2)
    assert load(subject, (3, 4, 4)) is subject
    with pytest.raises(ShapeError, match=r"net\.py:Net is loaded for 3x4x4, not for 3x8x8"):
        profile(subject, (3, 8, 8))


@pytest.mark.parametrize("printing", [
    "print('hello')", "os.write(1, b'hello')", "print('hello', file=sys.__stdout__)",
    "os.system('echo hello')",
])  # fmt: skip
def test_whatever_way_a_network_prints_it_goes_to_stderr(printing, asked):
    written(network(before=printing))
    code, out, err = asked("net.py:Net", "--format", "json")
    assert code == 0
    assert "hello" in err
    json.loads(out)


@pytest.mark.parametrize("closing", ["sys.__stdout__.close()", "os.close(1)"])
@pytest.mark.parametrize("end", ["", "sys.exit(0)"])
def test_a_network_that_closes_stdout_takes_no_answer_away(closing, end, asked, monkeypatch):
    before = os.fstat(1)
    with open(os.dup(1), "w") as stream:
        monkeypatch.setattr(sys, "__stdout__", stream)
        written(network(before=closing, forward=end))
        for _ in range(2):
            code, out, _ = asked("net.py:Net", "--format", "json")
    assert code == (2 if end else 0)
    assert os.path.samestat(os.fstat(1), before)
    assert end or json.loads(out)


# ---------------------------------------------------------------- names that look like markup

NAMES = ["[/b]", "[/]", "[bold]x", "[link=x]y", ":smile:", "\\[", "a b", "日本", "x" * 60]


def named(layer, kind):
    """A file with one layer of that name, whose class has that name."""
    return (
        f"{HEAD}Kind = type({kind!a}, (nn.Linear,), {{}})\n"
        f"def Net():\n    net = nn.Sequential()\n    net.add_module({layer!a}, Kind(4, 4))\n"
        "    return net\n"
    )


@pytest.mark.parametrize("name", NAMES)
def test_tables_show_a_name_as_it_is(name, asked):
    written(named(name, name))
    code, out, _ = asked("net.py:Net", "--layers", "--by", "layer")
    assert code == 0
    assert out.count(name) == 3  # the layer, its kind, and its part of the peak


def test_what_the_encoding_of_the_output_lacks_is_shown_as_its_escape(asked):
    written(named("\ud800", "Kind"))
    code, out, _ = asked("net.py:Net", "--layers", "--by", "layer")
    assert code == 0
    assert out.count("\\ud800") == 2


def test_a_file_called_like_markup_is_named_as_it_is(asked):
    for path in ("[/b]/:smile:.py", "[bold].py"):
        written(PLAIN, path)
    pair = ("[/b]/:smile:.py:Net", "[bold].py:Net")
    code, out, _ = asked(
        *pair, "--layers", "--fit", "1GiB", "--batches", "1,2", "--plot", "out.html"
    )
    assert code == 0
    assert all(out.count(name) >= 5 for name in pair)
    code, out, _ = asked(*pair, "--device", "phone_8gb")
    assert code == 0
    assert all(f"{name}: no table says" in out for name in pair)


# ---------------------------------------------------------------- what is refused

MISTAKES = {
    # what is no network
    "a class": (f"{HEAD}def Net(): return nn.Linear\n", "is a type, no torch.nn.Module"),
    "nothing": ("def Net(): pass\n", "is a NoneType, no torch.nn.Module"),
    "a function": ("def Net(): return print\n", "is a builtin_function_or_method, no torch"),
    "a tuple": (f"{HEAD}def Net(): return nn.Linear(4, 4), 3\n", "is a tuple, no torch"),
    "weights": (f"{HEAD}def Net(): return nn.Linear(4, 4).state_dict()\n", "is a OrderedDict"),
    "a generator": (f"{HEAD}def Net(): yield nn.Linear(4, 4)\n", "is a generator, no torch"),
    "a coroutine": (f"{HEAD}async def Net(): return nn.Linear(4, 4)\n", "is a coroutine, no"),
    "a traced module": (
        f"{HEAD}def Net(): return torch.jit.trace(nn.Linear(4, 4), torch.zeros(1, 4))\n",
        "is compiled by TorchScript",
    ),
    "a list of modules": (f"{HEAD}def Net(): return nn.ModuleList()\n", "has no forward method"),
    "no super().__init__()": (
        f"{HEAD}class Net(nn.Module):\n    def __init__(self): pass\n",
        "net.py:Net has not called super().__init__()",
    ),
    "none inside": (
        f"{HEAD}class In(nn.Module):\n    def __init__(self): pass\nNet = nn.Sequential(In())\n",
        "module '0' of net.py:Net has not called super().__init__()",
    ),
    "none before a layer": (
        f"{HEAD}class Net(nn.Module):\n    def __init__(self): self.a = nn.Linear(4, 4)\n",
        "cannot assign module before Module.__init__() call (__init__, line 4 of net.py)",
    ),
    "half": (network(init="self.half()"), "has float16 weights"),
    # what cannot be built
    "with an argument": ("def Net(depth): pass\n", "missing 1 required positional argument: 'd"),
    "with a keyword": ("def Net(*, depth): pass\n", "missing 1 required keyword-only argument"),
    "an abstract class": (
        "import abc\nclass Net(abc.ABC):\n    @abc.abstractmethod\n    def act(self): pass\n",
        "Can't instantiate abstract class Net",
    ),
    "of an error": ("def Net():\n    1 / 0\n", "ZeroDivisionError: division by zero (Net, line 2"),
    "of an error without text": (
        "class Own(Exception):\n    def __str__(self): raise SystemExit(0)\ndef Net(): raise Own\n",
        "without arguments: Own (Net, line 3 of net.py)",
    ),
    "of too little memory": ("def Net(): raise MemoryError\n", "arguments: MemoryError (Net,"),
    # what cannot be imported
    "an error": ("raise ValueError('one\\ntwo')\n", "import 'net.py': ValueError: one (line 1"),
    "an error of several": ("raise ExceptionGroup('two', [KeyError()])\n", "ExceptionGroup: two"),
    "a missing package": (
        "import no_such_package\n",
        "ModuleNotFoundError: No module named 'no_such_package' (line 1 of net.py)",
    ),
    "a relative import": ("from . import parts\n", "write package.module:factory or path.py"),
    "stdin": ("input()\n", "cannot import 'net.py': "),
    "no factory": ("", "net.py has no 'Net'"),
    "a near factory": (f"{HEAD}class Nett(nn.Linear): pass\n", "did you mean 'Nett'?"),
    "bad syntax": ("def (:\n", "SyntaxError: invalid syntax (net.py, line 1)"),
    "another encoding": (PLAIN.encode("utf-16"), "cannot import 'net.py': SyntaxError: "),
    "broken UTF-8": (b"x = '\xe9'\n", "cannot import 'net.py': SyntaxError: "),
    "an unknown encoding": (b"# coding: klingon\n", "unknown encoding: klingon"),
    "a recursion": ("def f(): f()\nf()\n", "RecursionError: maximum recursion depth exceeded (f,"),
    # what cannot be looked at
    "__getattr__": (
        method("__getattr__", "return self.__dict__['no']"),
        "Net cannot be copied to the meta device: KeyError: 'no'",
    ),
    "__deepcopy__": (method("__deepcopy__", "raise KeyError(3)"), "meta device: KeyError: 3"),
    "no copy": (method("__deepcopy__", "return self"), "its __deepcopy__ gives Net, no copy"),
    "a copy of nothing": (method("__deepcopy__", "pass"), "__deepcopy__ gives NoneType, no copy"),
    "a lock": (network(init="import threading\nself.lock = threading.Lock()"), "cannot pickle"),
    "equal without a hash": (
        method("__eq__", "return True"), "cannot be counted: TypeError: unhashable type: 'Net'"
    ),
    "parameters": (method("parameters", "return [3]"), "net.py:Net cannot be counted: Attribute"),
    "modules": (method("named_modules", "return None"), "cannot be counted: TypeError: 'NoneType'"),
    "2,000 nested": (
        f"{HEAD}Net = nn.Linear(4, 4)\nfor _ in range(2000): Net = nn.Sequential(Net)\n",
        "net.py:Net cannot be counted: it is nested too deeply for Python",
    ),
    "inside itself": (network(init="self.linear.outer = self"), "RecursionError: maximum recur"),
    "a layer called loss": (
        network(init="self.loss = nn.Tanh()", forward="images = self.loss(images)"),
        "has a layer called 'loss', as the loss of a training step is called here",
    ),
    "weights called loss": (network(init="self.loss = nn.Linear(4, 4)"), "a layer called 'loss'"),
    # what cannot be run
    "two inputs": (f"{HEAD}Net = nn.Bilinear(4, 4, 4)\n", "cannot read 3x4x4: TypeError: "),
    "no input": (
        f"{HEAD}class Net(nn.Module):\n    def forward(self): pass\n",
        "takes 1 positional argument but 2 were given",
    ),
    "async": (
        f"{HEAD}class Net(nn.Module):\n    async def forward(self, images): pass\n",
        "the forward method of Net is async; make it plain",
    ),
    "an assertion": (network(forward="assert images.dim() == 2, 'two'"), "AssertionError: two"),
    "no error": (network(forward="raise 3"), "exceptions must derive from BaseException"),
    "a failing hint": (
        network(
            forward="raise ValueError('no')",
            methods="@property\ndef in_channels(self): raise KeyError",
        ),
        "cannot read 3x4x4: ValueError: no",
    ),
    "a failing step": (
        network(forward="if self.training: raise ValueError('no')"),
        "cannot take a training step on 2 image(s) of 3x4x4 in fp32: ValueError: no",
    ),
    "no scores": (network(forward="return None"), "puts out NoneType without class scores"),
    "scores in themselves": (
        network(forward="scores = []\nscores.append(scores)\nreturn scores"), "RecursionError"
    ),
    "lazy and unused": (network(init="self.extra = nn.LazyLinear(4)"), "never uses 'extra.weight'"),
    "lazy buffer": (
        network(init="self.register_buffer('mean', nn.UninitializedBuffer())"),
        "net.py:Net never uses 'mean', which is lazy",
    ),
    "lazy, and no training": (
        network(
            init="self.extra = nn.LazyConv3d(4, 1)",
            forward="if self.training: self.extra(images[0, 0, 0])",
        ),
        "used in training only, and cannot be run in training: ",
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:.*torch.jit.*")
@pytest.mark.parametrize(("source", "says"), MISTAKES.values(), ids=MISTAKES)
def test_what_cannot_be_counted_is_one_sentence_with_the_error_of_the_network(source, says, asked):
    written(source)
    assert says in refused(asked("net.py:Net"))


@pytest.mark.parametrize("part", ["before", "init", "forward"])
def test_no_warning_stands_beside_what_is_said(part, asked):
    written(network(**{part: "import warnings\nwarnings.warn('be warned')\n"}))
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        code, _, _ = asked("net.py:Net")
    assert (code, shown) == (0, [])


WAYS = "write package.module:factory or path.py:factory"
REFERENCES = {
    "net.py": "'net.py' names no network; write net.py:factory",
    "net.py:": "'net.py:' names no network; write net.py:factory",
    "C:/models/net.py": "names no network; write C:/models/net.py:factory",
    "C:\\models\\net.py": "names no network; write C:\\models\\net.py:factory",
    "a:b.py": "names no network; write a:b.py:factory",
    "torch.nn:": "'torch.nn:' names no network; write torch.nn:factory",
    ":Net": f"':Net' names no network; {WAYS}",
    ":": f"':' names no network; {WAYS}",
    "net.py::Net": f"names no network; {WAYS}",
    "net.py:Net:": "'net.py:Net:' names no network; write net.py:Net",
    "net.py:Net.": f"names no network; {WAYS}",
    "net.py:Net()": "net.py has no 'Net()'; did you mean 'Net'?",
    "net.py:Net.deep": "net.py:Net has no 'deep'",
    "net.py:__name__": "is a str, no torch.nn.Module",
    "nowhere.py:Net": f"there is no file 'nowhere.py'; {WAYS}",
    "C:\\models\\nowhere.py:Net": f"nowhere.py'; {WAYS}",
    "folder.py:Net": f"there is no file 'folder.py'; {WAYS}",
    "http://localhost/net.py:Net": "there is no file 'http://localhost/net.py'",
    "folder/net:Net": f"'folder/net' is no Python file; {WAYS}",
    "no_such_package:Net": f"No module named 'no_such_package'; {WAYS}",
    ".net:Net": f"perform a relative import for '.net'; {WAYS}",
    "a\0.py:Net": "there is no file",
    "torch.nn:Linear": "missing 2 required positional arguments",
    "torch.nn:functional": "is a module, no torch.nn.Module",
    "builtins:exit": "builtins:exit ended itself by SystemExit: None; leave that out",
    "sys:exit": "sys:exit ended itself by SystemExit; leave that out",
}


@pytest.mark.parametrize(("reference", "says"), REFERENCES.items())
def test_a_reference_that_names_no_network_is_answered_with_what_to_write(reference, says, asked):
    written(PLAIN)
    Path("folder.py").mkdir()
    assert says in refused(asked(reference))
