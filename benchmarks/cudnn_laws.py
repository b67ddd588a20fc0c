"""What does cuDNN answer without the two rules that are added to it?

`memory_laws.py` starts it as a process of its own, which must not have imported torch: torch brings
a cuDNN of another version. It reads {"site", "properties", "questions"} from the standard input
and writes {"cudnn", "answers"} to the standard output. A question is a convolution's key, its
direction, the batch size and the mode; an answer is in bytes, null where no plan builds.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from ninlab.cudnn import Cudnn, CudnnError, Descriptor, Oracle, Plan
from ninlab.workspaces import ConvCall, Direction


class WithoutProducts(Oracle):
    """No convolution is taken for matrix products."""

    def _ranks_first(self, engine: int, graph: Descriptor) -> bool:
        return False


class WithoutSplitSums(Oracle):
    """Sums are split as for the few multiprocessors that cuDNN assumes."""

    def _on_device(self, plan: Plan, *_: Any) -> Plan:
        return plan


class WithoutBoth(WithoutProducts, WithoutSplitSums):
    """What cuDNN itself says."""


ORACLES = {
    "products split_sums": Oracle,
    "products": WithoutSplitSums,
    "split_sums": WithoutProducts,
    "": WithoutBoth,
}
"""By the names of the rules that they follow."""


def answers(
    cudnn: Cudnn, properties: dict[str, Any], questions: list[tuple[str, str, int, str]]
) -> dict[str, list[int | None]]:
    """The answers to all questions of each of `ORACLES`."""

    def asked(oracle: Oracle, key: str, direction: str, batch_size: int, mode: str) -> int | None:
        try:
            return oracle.workspace_bytes(ConvCall.of(key), Direction(direction), batch_size, mode)
        except CudnnError:
            return None

    return {
        rules: [asked(oracle(cudnn, properties), *question) for question in questions]
        for rules, oracle in ORACLES.items()
    }


if __name__ == "__main__":
    wanted = json.load(sys.stdin)
    cudnn = Cudnn(Path(wanted["site"]))
    found = answers(cudnn, wanted["properties"], wanted["questions"])
    json.dump({"cudnn": cudnn.version, "answers": found}, sys.stdout)
