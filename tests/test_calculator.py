"""The calculator's data: what was recorded once gives what the formulas give, for every input."""

import json
import re
from base64 import b85decode
from dataclasses import replace
from html.parser import HTMLParser
from zlib import decompress

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ninlab.architectures import ARCHITECTURES, NIN, Architecture, architecture
from ninlab.calculator import Calculator, knowledge, menu
from ninlab.calculator.programs import (
    CATEGORIES,
    PHASES,
    WIDTH_FACTORS,
    Design,
    block_widths,
    design_program,
    designs,
    network_program,
)
from ninlab.calculator.tracing import Quotient, Symbol, Traced, Tracer, TracingError
from ninlab.devices import DEVICES
from ninlab.errors import NinlabError, ShapeError
from ninlab.figures import CATEGORY_COLORS
from ninlab.formulas import macs, parameters
from ninlab.liveness import saved_lines, timeline
from ninlab.reports import live_bytes, tensor_peak
from ninlab.roofline import training_operators
from ninlab.shapes import at_input, smallest_input
from ninlab.steps import Optimizer, Precision
from tests import book
from tests.strategies import architectures

HEAVIEST_PAGE_BYTES = 200_000
sizes = st.integers(1, 40) | st.integers(1, 400)  # below 40 most networks begin to refuse
batches = st.integers(1, 4096)
optimizers = st.sampled_from(Optimizer)
precisions = st.sampled_from(Precision)


class Reader:
    """What the page's script does with a program, in Python."""

    def __init__(self, program: dict, **symbols: int) -> None:
        self.program = json.loads(json.dumps(program))  # as the page receives it
        self.atoms = [symbols[name] for name in self.program["symbols"]]
        for numerator, divisor in self.program["quotients"]:
            self.atoms.append(self.value(numerator) // divisor)

    def value(self, number: int) -> int:
        total = 0
        for term, *factors in self.program["sums"][number]:
            for atom in factors:
                term *= self.atoms[atom]
            total += term
        return total

    def refusal(self, network: str) -> str | None:
        for checked, sentence in self.program["guards"]:
            if self.value(checked) < 0:
                pieces = (p if isinstance(p, str) else str(self.value(p)) for p in sentence)
                return "".join(pieces).replace("{network}", network)
        return None

    def moments(self, spans: list[int]) -> list[tuple]:
        """(allocates, constant, per image, category, phase, layer, operator) of each event."""
        of, found = self.program, []
        for span in spans:
            block = layer = 0
            columns = (of[f"span_{name}"][span] for name in ("events", "layers", "operators"))
            for code, step, operator in zip(*columns, strict=True):
                block += code >> 1
                layer += step
                constant, per_image, category = of["blocks"][block]
                found.append(
                    (
                        not code & 1,
                        self.value(constant),
                        self.value(per_image),
                        CATEGORIES[category],
                        PHASES[of["span_phases"][span]],
                        of["layers"][layer],
                        of["operators"][operator],
                    )
                )
        return found

    def work(self, works: list[int]) -> list[tuple[int, int]]:
        """(FLOPs, bytes) of each operator, in no order."""
        found = []
        for work in works:
            flops = moved = 0
            for flop_step, byte_step, times in zip(*self.program["works"][work], strict=True):
                flops, moved = flops + flop_step, moved + byte_step
                found += [(self.value(flops), self.value(moved))] * times
        return sorted(found)


def as_recorded(events) -> list[tuple]:
    return [
        (
            event.allocates,
            event.constant_bytes,
            event.bytes_per_image,
            event.category,
            event.phase,
            event.layer,
            event.operator,
        )
        for event in events
    ]


def check_program(
    reader: Reader,
    network: Architecture,
    image: tuple[int, int],
    batch: int,
    optimizer: str,
    precision: str,
) -> None:
    """Hold everything a program gives against the modules that it was recorded from."""
    refusal = None
    try:
        network = at_input(network, (network.input_shape[0], *image))
    except ShapeError as error:
        refusal = str(error)
    assert reader.refusal(network.name) == refusal
    if refusal is not None:
        return
    program, width = reader.program, str(Precision(precision).element_bytes)
    lines = saved_lines(network, precision)
    operators = training_operators(network, batch, optimizer, precision)
    assert reader.value(program["parameters"]) == parameters(network)
    assert reader.value(program["macs"]) == macs(network)
    assert [reader.value(number) for number in program["saved"][width]] == [
        sum(line.constant_bytes for line in lines),
        sum(line.bytes_per_image for line in lines),
    ]
    step = f"{optimizer} {width}"
    assert reader.moments(program["training"][step]) == as_recorded(
        timeline(network, optimizer, precision)
    )
    assert reader.moments(program["inference"][width]) == as_recorded(
        timeline(network, precision=precision, training=False)
    )
    assert reader.work(program["work"][step]) == sorted((o.flops, o.bytes) for o in operators)


# ---------------------------------------------------------------- programs


@settings(max_examples=100)
@given(
    network=st.sampled_from(list(ARCHITECTURES.values())) | architectures(),
    height=sizes,
    width=sizes,
    batch=batches,
    optimizer=optimizers,
    precision=precisions,
)
def test_a_recorded_network_costs_what_the_formulas_say_or_refuses_in_their_words(
    network, height, width, batch, optimizer, precision
):
    assume(smallest_input(network) is not None)
    reader = Reader(network_program(network), height=height, width=width, batch=batch)
    check_program(reader, network, (height, width), batch, optimizer, precision)


@settings(max_examples=40, deadline=None)
@given(
    design=st.sampled_from(list(designs())),
    classes=st.integers(1, 1000),
    channels=st.integers(1, 4),
    factor=st.sampled_from(WIDTH_FACTORS),
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    batch=batches,
    optimizer=optimizers,
    precision=precisions,
)
def test_a_recorded_design_costs_what_the_formulas_say_or_refuses_in_their_words(
    design, classes, channels, factor, height, width, batch, optimizer, precision
):
    widths = {f"width{i}": size for i, size in enumerate(block_widths(factor), start=1)}
    reader = Reader(
        design_program(design),
        height=height,
        width=width,
        channels=channels,
        classes=classes,
        batch=batch,
        **widths,
    )
    network = design.architecture(classes, channels, factor)
    check_program(reader, network, (height, width), batch, optimizer, precision)


@pytest.mark.parametrize("name", ["lenet", "nin_batch_norm", "googlenet"])
@pytest.mark.parametrize("optimizer", Optimizer)
def test_precisions_with_elements_of_the_same_width_take_the_same_memory_and_work(name, optimizer):
    network = architecture(name)
    assert timeline(network, optimizer, "tf32") == timeline(network, optimizer, "fp32")
    assert saved_lines(network, "tf32") == saved_lines(network, "fp32")
    assert training_operators(network, 8, optimizer, "tf32") == training_operators(
        network, 8, optimizer, "fp32"
    )


def test_a_design_without_changes_is_the_textbooks_network():
    assert Design().architecture() == NIN
    assert Design().key in knowledge(())["designs"]


def test_a_width_factor_changes_the_blocks_as_nin_layers_does():
    assert block_widths(1.0) == [96, 256, 384]
    assert [block_widths(factor) for factor in WIDTH_FACTORS] == sorted(
        block_widths(factor) for factor in WIDTH_FACTORS
    )


def test_networks_with_equal_layers_share_a_program():
    place = {network["name"]: network["program"] for network in knowledge(menu())["networks"]}
    assert place["nin"] == place["nin_kaiming"] != place["nin_fixed"]


# ---------------------------------------------------------------- tracing


@st.composite
def expressions(draw, depth: int = 4):
    """A function of (x, y) made of what a Traced number can do."""
    if depth == 0 or draw(st.integers(0, 4)) == 0:
        leaf = draw(st.one_of(st.sampled_from("xy"), st.integers(-5, 9)))
        return lambda x, y: {"x": x, "y": y}.get(leaf, leaf)
    left, right = draw(expressions(depth=depth - 1)), draw(expressions(depth=depth - 1))
    number = draw(st.integers(1, 7))
    return draw(
        st.sampled_from(
            [
                lambda x, y: left(x, y) + right(x, y),
                lambda x, y: left(x, y) - right(x, y),
                lambda x, y: left(x, y) * right(x, y),
                lambda x, y: left(x, y) // number,
                lambda x, y: left(x, y) % number,
                lambda x, y: -left(x, y),
            ]
        )
    )


def value_of(traced: Traced | int, atoms: list[int]) -> int:
    """The value of a traced number where the atoms have these values."""
    if isinstance(traced, int):
        return traced
    total = 0
    for monomial, coefficient in traced.terms:
        for atom in monomial:
            coefficient *= atoms[atom]
        total += coefficient
    return total


def atoms_of(tracer: Tracer, **values: int) -> list[int]:
    atoms: list[int] = []
    for atom in tracer.atoms:
        match atom:
            case Symbol(name=name):
                atoms.append(values[name])
            case Quotient(numerator=numerator, divisor=divisor):
                atoms.append(value_of(numerator, atoms) // divisor)
    return atoms


@settings(deadline=None)
@given(expression=expressions(), x=st.integers(-50, 50), y=st.integers(-50, 50))
def test_a_traced_expression_has_the_value_of_the_expression(expression, x, y):
    tracer = Tracer()
    traced = expression(tracer.symbol("x"), tracer.symbol("y"))
    assert value_of(traced, atoms_of(tracer, x=x, y=y)) == expression(x, y)


@given(least=st.integers(-20, 20), bound=st.integers(-20, 20))
def test_what_the_smallest_value_decides_is_no_check(least, bound):
    tracer = Tracer()
    x = tracer.symbol("x", least)

    def program() -> None:
        if x < bound:
            raise NinlabError(f"{x} is below {bound}")

    if least >= bound:
        assert tracer.explore(program) == (None, ())
    else:
        _, (guard,) = tracer.explore(program)
        assert [value_of(guard.value, [value]) < 0 for value in (bound - 1, bound)] == [True, False]
        assert guard.sentence == ("", x, f" is below {bound}")


def test_checks_come_in_the_order_of_the_program_each_with_its_own_sentence():
    tracer = Tracer()
    x, y = tracer.symbol("x", 1), tracer.symbol("y", 1)

    def program() -> int:
        if x < 3:
            raise NinlabError("first")
        if y >= x:
            raise NinlabError("second")
        if x < 2:
            raise NinlabError("implied by the first")
        return x + y

    result, guards = tracer.explore(program)
    assert result == x + y
    assert [guard.sentence for guard in guards] == [("first",), ("second",)]


def test_a_product_of_what_is_not_negative_is_not_negative():
    tracer = Tracer()
    x, y = tracer.symbol("x", 5), tracer.symbol("y", 4)
    assert not (x - 4) * (y - 3) * 2 < 2


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(lambda x: 1 if x < 3 else 2, id="two ways to go on"),
        pytest.param(lambda x: bool(x), id="truth"),
        pytest.param(lambda x: x == 3, id="equality"),
        pytest.param(lambda x: x * 0.5, id="a fraction"),
        pytest.param(lambda x: x // 0, id="division by zero"),
        pytest.param(lambda x: list(range(x)), id="as many times"),
        pytest.param(lambda x: x / 2, id="true division"),
        pytest.param(lambda x: 7 // x, id="division by an unknown"),
    ],
)
def test_what_no_polynomial_expresses_is_refused(program):
    tracer = Tracer()
    x = tracer.symbol("x", 0)
    with pytest.raises(TypeError):
        tracer.explore(lambda: program(x))
    assert issubclass(TracingError, TypeError)


# ---------------------------------------------------------------- the object


class Elements(HTMLParser):
    """Attributes of every element, and the text of those that hold data."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs


def packed(html: str) -> dict:
    text = re.search(r'<script type="text/plain">(.*?)</script>', html, re.S)[1]
    return json.loads(decompress(b85decode(text.replace(",", "<").replace(".", "&"))))


def test_the_object_is_no_heavier_than_a_reader_should_wait_for():
    size = len(Calculator()._repr_html_().encode())
    assert size < HEAVIEST_PAGE_BYTES, (
        f"the calculator takes {size:,} bytes of a page: offer fewer networks (`calculator.menu`), "
        "find what grew with benchmarks/calculator_page.py, or say why readers should wait longer"
    )


def test_the_object_carries_the_networks_of_its_menu_and_every_device():
    data = packed(Calculator()._repr_html_())
    assert [network["name"] for network in data["networks"]] == list(menu())
    assert [device["name"] for device in data["devices"]] == list(DEVICES)
    assert data == json.loads(json.dumps(knowledge(menu())))


def test_a_network_that_is_not_in_the_menu_is_added_where_it_is_asked_for():
    asked = "nin_fixed_8_blocks_batch_norm"
    assert asked not in menu()
    for calculator in (Calculator(asked), Calculator(second=asked)):
        offered = [network["name"] for network in packed(calculator._repr_html_())["networks"]]
        assert set(offered) == {*menu(), asked}
        assert offered == sorted(offered, key=list(ARCHITECTURES).index)


def test_a_network_is_offered_from_the_moment_when_it_is_registered(monkeypatch):
    def offered():
        return {one["name"] for one in packed(Calculator()._repr_html_())["networks"]}

    assert "mine" not in offered()
    monkeypatch.setitem(ARCHITECTURES, "mine", replace(NIN, name="mine"))
    assert "mine" in offered()


def test_no_chapter_speaks_of_a_network_that_the_menu_leaves_out():
    left_out = {ARCHITECTURES[name].variant for name in set(ARCHITECTURES) - set(menu())}
    assert left_out
    for path in book.notebooks():  # by the variant, which a page may name alone
        text = path.read_text(encoding="utf-8")
        assert not [variant for variant in left_out if variant in text], path.stem


def test_what_the_object_carries_means_nothing_to_a_page():
    html = Calculator()._repr_html_()
    text = re.search(r'<script type="text/plain">(.*?)</script>', html, re.S)[1]
    assert not set(text) & set("<&\"'\n")


def test_no_comment_of_a_script_is_carried():
    script = re.search(r"<script>(.*?)</script>", Calculator()._repr_html_(), re.S)[1]
    assert not re.search(r"/\*|\*/|<!--|(^|\s)//", script)


def test_the_object_asks_for_nothing_else():
    html = Calculator()._repr_html_()
    names = {name for name, _ in Elements(html).attributes}
    assert not names & {"src", "href", "action", "srcset", "data"}
    addresses = set(re.findall(r"https?://[^\s\"'`]+", html))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # the name of a language, never fetched


def test_without_a_script_the_table_holds_the_first_state():
    html = Calculator(batch_size=7, optimizer="adam", precision="bf16")._repr_html_()
    table = html[: html.index("<template>")]
    peak = tensor_peak(timeline(NIN, "adam", "bf16"), 7).tensor_peak_bytes
    assert max(live_bytes(timeline(NIN, "adam", "bf16"), 7)) == peak
    assert "Batch 7, adam, bf16" in table
    for name in ("nin", "alexnet", "vgg11"):
        assert f'<th scope="row">{architecture(name).title}</th>' in table


def test_a_category_has_the_color_it_has_in_the_figures():
    html = Calculator()._repr_html_()
    for category in CATEGORIES:
        assert f"--{category}: {CATEGORY_COLORS[category]};" in html


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"first": "nim"}, "did you mean 'nin'"),
        ({"second": "alexnets"}, "did you mean 'alexnet'"),
        ({"memory": "h1000"}, "did you mean 'h100'"),
        ({"optimizer": "adm"}, "did you mean 'adam'"),
        ({"precision": "fp64"}, "known: fp32, tf32, bf16"),
        ({"batch_size": 0}, "the batch size must be at least 1, not 0"),
    ],
)
def test_a_calculator_of_what_is_not_known_is_refused(wrong, sentence):
    with pytest.raises(NinlabError, match=re.escape(sentence)):
        Calculator(**wrong)


def test_one_network_alone_can_be_shown():
    html = Calculator(second=None)._repr_html_()
    start = next(value for name, value in Elements(html).attributes if name == "data-start")
    assert json.loads(start)["b-network"] == ""


def test_a_network_of_other_classes_is_another_program():
    wider = replace(NIN, layers=Design().architecture(num_classes=100).layers)
    assert network_program(wider) != network_program(NIN)
