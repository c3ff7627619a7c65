"""Activations without a gradient, written out by their definitions in the ONNX standard.

- Elu `x if x > 0 else alpha (exp(x) - 1)`, Selu `gamma` times that: the exponential is taken of `min(x, 0)`,
  so that it cannot overflow. The gradient of Clip is 1 at its limit, that of Relu 0 at 0: together 1, as of
  x.
- Softplus `log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|))`, which overflows nowhere; `-|x| = 2 min(x, 0) -
  x`.
- Softsign `x / (1 + |x|)`.
- HardSigmoid `min(1, max(0, alpha x + beta))`, and HardSwish `x` times that of `x / 6 + 0.5`.
"""

from collections.abc import Callable, Collection, Iterator
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from birdsonnx.model.edits import Editor
from birdsonnx.model.graph import number


class ActivationsAsArithmetic:
    """Looks at such activations after a trained weight.

    Args:
        trained: the tensors that depend on a trained weight.
    """

    done = "activations written out"
    subject = "activations"

    def __init__(self, trained: Collection[str]) -> None:
        self._trained = trained

    def candidates(self, graph: Editor) -> Iterator[NodeProto]:
        return (
            node for node in graph.nodes() if node.op_type in _WRITTEN_OUT and node.input[0] in self._trained
        )

    def check(self, _: Editor, __: NodeProto) -> str | None:
        return None

    def rewrite(self, graph: Editor, node: NodeProto) -> int:
        form = _Form(graph, node)
        _WRITTEN_OUT[node.op_type](form, node)
        graph.replace(node, *form.nodes)
        return 1


class _Form:
    """Nodes in place of one; each call adds an operation and gives its result's name."""

    def __init__(self, graph: Editor, node: NodeProto) -> None:
        self.x: str = node.input[0]
        self.nodes: list[NodeProto] = []
        self._graph, self._name, self._output = graph, node.name, node.output[0]

    def __call__(self, operation: str, *inputs: str | float, last: bool = False) -> str:
        name = f"{self._output}/{len(self.nodes)}"
        names = [value if isinstance(value, str) else self._number(value) for value in inputs]
        result = self._output if last else name
        self.nodes.append(
            helper.make_node(operation, names, [result], name=f"{self._name}/{len(self.nodes)}")
        )
        return result

    def _number(self, value: float) -> str:
        name = f"{self._output}/constant_{value:g}"
        self._graph.set_constant(name, np.array(value, np.float32))
        return name


def _elu(form: _Form, alpha: float, scale: float = 1.0) -> None:
    below = form("Sub", form("Exp", form("Clip", form.x, "", 0.0)), 1.0)
    above = form("Mul", form("Relu", form.x), scale)
    form("Add", above, form("Mul", below, scale * alpha), last=True)


def _softplus(form: _Form) -> None:
    away = form("Sub", form("Mul", form("Clip", form.x, "", 0.0), 2.0), form.x)
    form("Add", form("Relu", form.x), form("Log", form("Add", form("Exp", away), 1.0)), last=True)


def _hard_sigmoid(form: _Form, alpha: float, beta: float, last: bool = True) -> str:
    return form("Clip", form("Add", form("Mul", form.x, alpha), beta), 0.0, 1.0, last=last)


_WRITTEN_OUT: dict[str, Callable[[_Form, NodeProto], Any]] = {
    "Elu": lambda form, node: _elu(form, number(node, "alpha", 1.0)),
    "Selu": lambda form, node: _elu(
        form, number(node, "alpha", 1.6732631921768188), number(node, "gamma", 1.0507010221481323)
    ),
    "Softplus": lambda form, _: _softplus(form),
    "Softsign": lambda form, _: form("Div", form.x, form("Add", form("Abs", form.x), 1.0), last=True),
    "HardSigmoid": lambda form, node: _hard_sigmoid(
        form, number(node, "alpha", 0.2), number(node, "beta", 0.5)
    ),
    "HardSwish": lambda form, _: form("Mul", form.x, _hard_sigmoid(form, 1 / 6, 0.5, last=False), last=True),
}
