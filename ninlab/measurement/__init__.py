"""What did a device really do: peak bytes and seconds of one step?

The step is the one that the calculator predicts: a warm one in the textbook's order
(zero_grad, forward, cross-entropy, backward, step), or one forward pass without
gradients. On a GPU the caching allocator reports its peaks, and a trace of it separates
tensors from scratch. On a CPU torch's profiler lists every allocation. Each allocator
setting has a process of its own, because the allocator reads its setting once.

The tensors' peak leaves out scratch memory. On a GPU this is each block that no tensor
owns: cuDNN and cuBLAS take theirs from the allocator directly. On a CPU it is each block
that is allocated and freed inside one ATen call; oneDNN makes such blocks.

`cases` says what can be measured, `steps` takes and times a step, `cpu` and `gpu` read what
it allocated, `traces` reads what `gpu` wrote of that, `processes` measures cases in processes of
their own, `memory_records` keeps the results, `agreement` compares them with the prediction.

Known limits. cuDNN chooses by heuristics (``benchmark`` off), as the workspace tables
assume. Bytes outside the allocator (the CUDA context, kernels' modules) are counted
for the whole device, other processes included. A CPU's total peak depends on the number
of threads. Its tensors' peak does not, but it includes step counters of optimizers, 4 bytes
for each tensor of parameters, which a training step on a GPU keeps on the host.
"""

from __future__ import annotations

from ninlab.measurement.agreement import (
    PARTS,
    TOLERANCE,
    Order,
    bytes_off,
    errors_in_words,
    orders,
    relative_errors,
    rightly,
    setting,
)
from ninlab.measurement.cases import (
    INFERENCE,
    MODES,
    PEAKS,
    Allocator,
    Case,
    CaseOutcome,
    Failed,
    Measured,
    measured_from_json,
)
from ninlab.measurement.gpu import (
    GpuEvent,
    TraceFromStart,
    events_path,
    from_start_path,
    tensor_peak,
    with_grown_results,
)
from ninlab.measurement.memory_records import KIND, MemoryRecord, load_records, record_id
from ninlab.measurement.processes import (
    DEFAULT_TIMED_STEPS,
    check_precision,
    describe_in_process,
    measure,
    measure_in_process,
)
from ninlab.measurement.steps import WARM_STEPS, CaseStep, probe_rate
from ninlab.measurement.traces import as_step, beside, read_trace

__all__ = [
    "DEFAULT_TIMED_STEPS",
    "INFERENCE",
    "KIND",
    "MODES",
    "PARTS",
    "PEAKS",
    "TOLERANCE",
    "WARM_STEPS",
    "Allocator",
    "Case",
    "CaseOutcome",
    "CaseStep",
    "Failed",
    "GpuEvent",
    "Measured",
    "MemoryRecord",
    "Order",
    "TraceFromStart",
    "as_step",
    "beside",
    "bytes_off",
    "check_precision",
    "describe_in_process",
    "errors_in_words",
    "events_path",
    "from_start_path",
    "load_records",
    "measure",
    "measure_in_process",
    "measured_from_json",
    "orders",
    "probe_rate",
    "read_trace",
    "record_id",
    "relative_errors",
    "rightly",
    "setting",
    "tensor_peak",
    "with_grown_results",
]
