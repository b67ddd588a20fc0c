"""What is a training step made of, whoever counts it?

The words that recipes, the paper side, torch's side, measurements, pages and help texts share,
each stated once: the optimizers with what a step of each keeps and calls, the precisions, how wide
a number is, and what the tensors are called that autograd keeps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TypeVar, assert_never

from ninlab.errors import UnknownNameError

FLOAT32_BYTES = 4
INT64_BYTES = 8
BOOL_BYTES = 1

LOSS = "loss"
"""The layer under which the loss's own tensors and operators are listed."""

Named = TypeVar("Named", bound=StrEnum)


class Precision(StrEnum):
    """In which arithmetic convolutions and matrix products run; weights are float32 in all."""

    FP32 = "fp32"
    TF32 = "tf32"
    BF16 = "bf16"

    @property
    def element_bytes(self) -> int:
        """Bytes of one number that convolutions and linear layers read and put out."""
        match self:
            case Precision.FP32 | Precision.TF32:
                return FLOAT32_BYTES
            case Precision.BF16:
                return 2
            case _:
                assert_never(self)

    @property
    def autocasts(self) -> bool:
        """Whether torch's autocast makes narrower copies of what such a layer reads."""
        return self.element_bytes != FLOAT32_BYTES


class Kernels(StrEnum):
    """Whose kernels compute a network's layers; `ninlab.fused` says what the others join."""

    TORCH = "torch"  # one operator a layer, or two
    FUSED = "fused"  # bias, ReLU and max pool in one operator
    CHAINED = "chained"  # and the two 1x1 layers of a narrow NiN block in one more


class Optimizer(StrEnum):
    """What turns gradients into steps, with torch's defaults but where `OPTIMIZERS` says so."""

    SGD = "sgd"
    MOMENTUM = "momentum"
    ADAM = "adam"
    ADAMW = "adamw"
    RMSPROP = "rmsprop"
    ADAGRAD = "adagrad"


@dataclass(frozen=True)
class ForeachCall:
    """One call of an optimizer that works on whole lists of tensors, one for each parameter.

    moved_lists says how many lists of all parameters it reads and writes. With makes_list one of
    these is new, and lives until the step is over.
    """

    operator: str  # ATen's name
    moved_lists: int
    makes_list: bool = False


@dataclass(frozen=True)
class OptimizerRule:
    """What a warm step of an optimizer keeps and calls: torch.optim's foreach implementation.

    states are tensors of each parameter's size that stay from step to step. They are made in the
    first step, or with the optimizer itself where made_at_once. is_capturable says whether torch
    can take its step inside a CUDA graph.
    """

    title: str
    states: int
    calls: tuple[ForeachCall, ...]
    made_at_once: bool = False
    is_capturable: bool = True


_COUNT_STEPS = ForeachCall("_foreach_add_", 0)  # scalars on the host
_ADAM = (
    ForeachCall("_foreach_lerp_", 3),
    ForeachCall("_foreach_mul_", 2),
    ForeachCall("_foreach_addcmul_", 3),
    ForeachCall("_foreach_sqrt", 2, makes_list=True),
    ForeachCall("_foreach_div_", 2),
    ForeachCall("_foreach_add_", 2),
    ForeachCall("_foreach_addcdiv_", 4),
)

OPTIMIZERS: Mapping[Optimizer, OptimizerRule] = MappingProxyType(
    {
        Optimizer.SGD: OptimizerRule("SGD", 0, (ForeachCall("_foreach_add_", 3),)),
        Optimizer.MOMENTUM: OptimizerRule(  # any momentum above 0, without Nesterov's variant
            "SGD with momentum",
            1,
            (
                ForeachCall("_foreach_mul_", 2),
                ForeachCall("_foreach_add_", 3),
                ForeachCall("_foreach_add_", 3),
            ),
        ),
        Optimizer.ADAM: OptimizerRule("Adam", 2, (_COUNT_STEPS, *_ADAM)),
        Optimizer.ADAMW: OptimizerRule(
            "AdamW", 2, (_COUNT_STEPS, ForeachCall("_foreach_mul_", 2), *_ADAM)
        ),
        Optimizer.RMSPROP: OptimizerRule(
            "RMSprop",
            1,
            (
                _COUNT_STEPS,
                ForeachCall("_foreach_mul_", 2),
                ForeachCall("_foreach_addcmul_", 3),
                ForeachCall("_foreach_sqrt", 2, makes_list=True),
                ForeachCall("_foreach_add_", 2),
                ForeachCall("_foreach_addcdiv_", 4),
            ),
        ),
        Optimizer.ADAGRAD: OptimizerRule(
            "Adagrad",
            1,
            (
                _COUNT_STEPS,
                ForeachCall("_foreach_addcmul_", 3),
                ForeachCall("_foreach_sqrt", 2, makes_list=True),
                ForeachCall("_foreach_add_", 2),
                ForeachCall("_foreach_mul", 2, makes_list=True),
                ForeachCall("_foreach_addcdiv_", 4),
            ),
            made_at_once=True,
            is_capturable=False,
        ),
    }
)
"""What each optimizer costs. `ninlab.optimizers` makes torch's own of the same names."""


class SavedKind(StrEnum):
    """What a tensor is that autograd keeps, where torch's own name would not say it.

    All others are called after autograd's node and field: relu_result, gelu_self.
    """

    INPUT = "input"
    WEIGHT_COPY = "weight_copy"  # in a lower precision, made by autocast
    BATCH_MEAN = "batch_mean"
    BATCH_INVERSE_DEVIATION = "batch_inverse_deviation"
    POOL_INPUT = "pool_input"
    POOL_INDICES = "pool_indices"
    POOL_CODES = "pool_codes"  # one byte each: where in its window a maximum lay
    RELU_RESULT = "relu_result"
    DROPOUT_MASK = "dropout_mask"
    LOG_SOFTMAX = "log_softmax"
    LABELS = "labels"
    TOTAL_WEIGHT = "total_weight"


ALSO_CALLED: Mapping[str, StrEnum] = MappingProxyType(
    {
        "float32": Precision.FP32,
        "float": Precision.FP32,
        "single": Precision.FP32,
        "tensorfloat32": Precision.TF32,
        "bfloat16": Precision.BF16,
        "float16": Precision.BF16,  # the 16 bits that there are
        "fp16": Precision.BF16,
        "half": Precision.BF16,
        "sgdm": Optimizer.MOMENTUM,
        "nesterov": Optimizer.MOMENTUM,
    }
)
"""What precisions and optimizers are called elsewhere, in lower case and without signs."""


def named(kind: type[Named], value: str, what: str | None = None) -> Named:
    """The member of that value. Raises UnknownNameError, which lists the values there are.

    what is the error's word for a member, by default the kind's name.
    """
    try:
        return kind(value)
    except ValueError:
        also = {name: str(each) for name, each in ALSO_CALLED.items() if isinstance(each, kind)}
        what = what or kind.__name__.lower()
        raise UnknownNameError(what, value, map(str, kind), also=also) from None
