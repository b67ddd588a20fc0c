"""Which layer is running?

A layer is the innermost module whose ``forward`` is on the stack; what runs outside
every submodule belongs to the layer called ``""``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ninlab.units import Shape


class LayerStack:
    """Follows a module while it runs; attach it with `watch`."""

    def __init__(self) -> None:
        self.names: list[str] = [""]
        self.output_shapes: dict[str, Shape] = {}  # of one image, by layer in order of first call

    @property
    def current(self) -> str:
        """Dotted path of the innermost module that is running."""
        return self.names[-1]

    @contextmanager
    def watch(
        self, module: nn.Module, on_change: Callable[[str], None] | None = None
    ) -> Iterator[None]:
        """Follow every submodule, and call on_change with the current layer when it changes.

        A module that is reachable under two paths is known under the first.
        """
        handles = []

        def enter(name: str) -> Callable[..., None]:
            def hook(*_: Any) -> None:
                self.names.append(name)
                self.output_shapes.setdefault(name, ())
                if on_change:
                    on_change(name)

            return hook

        def leave(_module: nn.Module, _inputs: Any, output: Any) -> None:
            name = self.names.pop()
            self.output_shapes[name] = _one_image(output)
            if on_change:
                on_change(self.current)

        for name, each in module.named_modules():
            if each is not module:
                handles.append(each.register_forward_pre_hook(enter(name), prepend=True))
                handles.append(each.register_forward_hook(leave))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
            del self.names[1:]


def _one_image(output: Any) -> Shape:
    if isinstance(output, dict):
        output = list(output.values())
    while isinstance(output, list | tuple) and output:
        output = output[0]
    return tuple(output.shape[1:]) if isinstance(output, Tensor) else ()
