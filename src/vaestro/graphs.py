"""What a function of tensors does, recorded once as a list of operations, and then run from the
list or compiled.

A step does the same at every call, and finds out anew each time what that is: which method, which
overload, which node of the backward pass. The record holds the operations themselves, those of
backward passes among them. Run from the list they are the same operations on the same numbers, so
that the result is the same bit for bit; compiled, they are fused into few loops, and rounding
differs.

What is recorded is what happened once, at given shapes: numbers that Python read from tensors,
branches that it took and attributes that it set are part of the record as they were.
"""

from __future__ import annotations

import math
import operator
import types
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import Graph, GraphModule, Node
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

aten = torch.ops.aten
ALIASES = {aten.detach.default, aten.alias.default, aten.lift_fresh.default}
SHAPES = {
    aten.view.default,
    aten._unsafe_view.default,
    aten.unsqueeze.default,
    aten.squeeze.dim,
    aten.squeeze.default,
}
PARTS = {aten.expand.default, aten.slice.Tensor}
FLIPS = {aten.t.default, aten.transpose.int}
VIEWS = ALIASES | SHAPES | PARTS | FLIPS
LIKE = {
    aten.ones_like.default,
    aten.zeros_like.default,
    aten.full_like.default,
    aten.new_zeros.default,
    aten.new_ones.default,
}
SUMS = {aten.dot.default, aten.sum.default, aten.sum.dim_IntList}
FOLDED = 2**16  # elements of the largest constant that is kept


class Record(NamedTuple):
    """Hold the operations of a function, and the tensors beyond its inputs that they read or write:
    its further inputs, in this order."""

    graph: GraphModule
    held: list[Tensor]


def record(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> Record:
    """Record the operations of a function at inputs of these shapes, types and strides; no tensor
    is changed by that.

    Raises:
        RuntimeError: it reads a number from a tensor; PyTorch raises other errors for other things
            that cannot be recorded.
    """
    from torch.fx.experimental.proxy_tensor import make_fx

    before: list[tuple[Tensor, Tensor]] = []

    def watched(*given: Tensor) -> tuple[Tensor, ...]:
        with _Watch(before):
            return tuple(function(*given))

    try:
        traced = make_fx(watched, tracing_mode="fake", _allow_non_fake_inputs=True)(*inputs)
    finally:
        with torch.no_grad():
            for tensor, value in reversed(before):
                tensor.copy_(value)
    graph, held = traced.graph, dict[str, tuple[Tensor, Node]]()
    place = [node for node in graph.nodes if node.op == "placeholder"][-1]
    for node in list(graph.nodes):
        if node.op == "get_attr":
            name = str(node.target)
            if name not in held:
                tensor = getattr(traced, name)
                if not isinstance(tensor, Tensor):
                    raise RuntimeError(
                        f"expected tensors alone in a recorded step; got {type(tensor).__name__}"
                    )
                with graph.inserting_after(place):
                    place = graph.placeholder(f"held_{len(held)}")
                place.meta["val"] = tensor
                held[name] = tensor, place
            node.replace_all_uses_with(held[name][1])
            graph.erase_node(node)
    # A module of its own: the traced one holds the tensors as parameters, and they would be taken
    # for inputs a second time.
    return Record(GraphModule(torch.nn.Module(), graph), [tensor for tensor, _ in held.values()])


class _Watch(TorchDispatchMode):
    """Keep what is written to before it is: while a function is recorded, its operations on real
    tensors alone are carried out."""

    def __init__(self, before: list[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.before = before

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func._schema.is_mutable and not any(
            isinstance(a, FakeTensor) for a in pytree.tree_leaves((args, kwargs))
        ):
            with _disable_current_modes():
                self.before += [
                    (a, a.clone())
                    for a in _written_to(func, args, kwargs or {})
                    if isinstance(a, Tensor)
                ]
        return func(*args, **(kwargs or {}))


def compiled(
    function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]
) -> Callable[..., Sequence[Tensor]]:
    """Record a function and compile the record to one graph, which what is returned runs.

    It is to be called without gradients, with inputs of the same shapes, types and strides: that is
    not looked at. What the function writes into tensors is written. What comes out may lie in the
    memory of tensors that the function holds, as it did in the function.

    Raises:
        RuntimeError: see `record`.
    """
    from torch._inductor.compile_fx import compile_fx, compile_fx_inner

    # For as long as it records, `networks.dense` is to leave activations for the compiler to fuse;
    # there is no other switch for that.
    backend: Any = torch.backends.mkldnn
    enabled, backend.enabled = backend.enabled, False
    try:
        made = record(function, inputs)
    finally:
        backend.enabled = enabled
    within: list[tuple[GraphModule, Any]] = []

    def inner(graph: GraphModule, examples: Sequence[Any], **options: Any) -> Any:
        within.append((graph, compile_fx_inner(graph, examples, **options)))
        return within[-1][1]

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch about itself
        whole = compile_fx(
            made.graph,
            [*inputs, *made.held],
            inner_compile=inner,
            config_patches={"size_asserts": False},
        )
    if len(within) == 1 and _ends(within[0][0]) == _ends(made.graph):
        # Nothing that was written comes out, to be written back, and no inputs were merged: what
        # stands around the graph does nothing, and takes as long as some products.
        direct = within[0][1]
        return lambda *given: direct([*given, *made.held])  # type: ignore[no-any-return]
    return lambda *given: whole(*given, *made.held)  # type: ignore[no-any-return,operator]


def _ends(graph: GraphModule) -> tuple[int, int]:
    """Return how many inputs and outputs a graph has."""
    nodes = list(graph.graph.nodes)
    return sum(node.op == "placeholder" for node in nodes), len(nodes[-1].args[0])


def listed(
    function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]
) -> Callable[..., Sequence[Tensor]]:
    """Record a function and return one that runs the operations of the record, less those that
    change nothing, one after the other.

    It is to be called without gradients, with inputs of the same shapes, types and strides. What
    comes out is the caller's alone.

    Raises:
        RuntimeError: see `record`.
    """
    graph, held = record(function, inputs)
    return _written(graph.graph, held + _tidied(graph.graph))


def _value(node: Any) -> Any:
    return node.meta.get("val") if isinstance(node, Node) else None


def _written_to(operation: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Any]:
    """Return the arguments of an operation that it writes to."""
    told = operation._schema.arguments if isinstance(operation, torch._ops.OpOverload) else []
    written = [i for i, a in enumerate(told) if a.alias_info is not None and a.alias_info.is_write]
    return pytree.tree_leaves(
        [args[i] if i < len(args) else kwargs.get(told[i].name) for i in written]
    )


def _is_view(node: Node) -> bool:
    """Tell whether what a node gives may lie in the memory of its first argument."""
    if node.target in VIEWS:
        return True
    if isinstance(node.target, torch._ops.OpOverload):
        return any(r.alias_info is not None for r in node.target._schema.returns)
    return node.target is operator.getitem


def _tidied(graph: Graph) -> list[Tensor]:
    """Leave out what changes nothing, and what depends on shapes alone, which is returned as
    further inputs."""
    written = [a for node in graph.nodes for a in _written_to(node.target, node.args, node.kwargs)]
    constants = (
        []
        if any(isinstance(a, Node) and a.op != "placeholder" for a in written)
        else _folded(graph)
    )
    for node in list(graph.nodes):
        same = _same(node, copies=bool(written))
        if same is not None:
            node.replace_all_uses_with(same)
            graph.erase_node(node)
    (end,) = [node for node in graph.nodes if node.op == "output"]
    outputs: list[Node] = []
    roots: set[Node] = set()
    for node in end.args[0]:
        root = node
        while root.op == "call_function" and _is_view(root):
            root = root.args[0]
        if root.op == "placeholder" or root in roots:  # what comes out is the caller's to write to
            with graph.inserting_before(end):
                node = graph.call_function(aten.clone.default, (node,))
        roots.add(root)
        outputs.append(node)
    end.args = (outputs,)
    graph.eliminate_dead_code()
    if not written:
        _sooner(graph)
        _reused(graph)
    return constants


def _sooner(graph: Graph) -> None:
    """Sum up what was made right after it was, while it is in the cache."""

    def sums_up(node: Node) -> bool:
        return node.target in SUMS or (_is_view(node) and all(map(sums_up, node.users)))

    for node in list(graph.nodes):
        sources = {source for source in node.all_input_nodes if source.op == "call_function"}
        if node.op == "call_function" and len(sources) == 1 and sums_up(node):
            sources.pop().append(node)


def _reused(graph: Graph) -> None:
    """Write what is computed cell by cell over the numbers that it is computed from, where nothing
    else reads them."""
    found: list[tuple[Node, Any]] = []
    for node in graph.nodes:
        if (
            node.op != "call_function"
            or not isinstance(node.target, torch._ops.OpOverload)
            or torch.Tag.pointwise not in node.target.tags
        ):
            continue
        source, (name, _, overload) = (
            node.args[0],
            str(node.target).removeprefix("aten.").partition("."),
        )
        within = getattr(getattr(aten, f"{name}_", None), overload, None)
        if (
            within is None
            or torch.Tag.nondeterministic_seeded in node.target.tags
            or not isinstance(source, Node)
        ):
            continue
        if (
            source.op == "call_function"
            and len(source.users) == 1
            and not _is_view(source)
            and _lie_alike(node, source)
        ):
            found.append((node, within))
    for node, within in found:
        node.target = within


def _lie_alike(node: Node, other: Node) -> bool:
    """Tell whether what two nodes give has the same shape, type and strides."""
    a, b = _value(node), _value(other)
    return (
        isinstance(a, Tensor)
        and isinstance(b, Tensor)
        and (a.shape, a.stride(), a.dtype) == (b.shape, b.stride(), b.dtype)
    )


def _same(node: Node, copies: bool) -> Node | None:
    """Return what a node equals, bit for bit, where that is at hand: a node before it, or one new
    view in place of several.

    Where `copies`, numbers in a memory of their own are not taken for those that they are copies
    of, which may be written to.
    """
    if (
        node.op != "call_function"
        or not node.args
        or not isinstance(node.args[0], Node)
        or node.kwargs
    ):
        return None
    op, source, others = node.target, node.args[0], node.args[1:]
    out, given = _value(node), _value(source)
    if not isinstance(out, Tensor) or not isinstance(given, Tensor):
        return None
    if op in ALIASES:
        return source
    if copies and op not in VIEWS:
        return None
    if op in FLIPS and source.target is op and source.args[1:] == others:
        return source.args[0]  # type: ignore[return-value]
    alike = _lie_alike(node, source)
    if op in SHAPES | PARTS and alike and out.storage_offset() == given.storage_offset():
        return source
    if op in SHAPES:
        root = source
        while root.target in SHAPES:
            root = root.args[0]  # type: ignore[assignment]
        if _value(root).is_contiguous() and (op is not aten.view.default or root is not source):
            with node.graph.inserting_before(node):
                joined = node.graph.call_function(aten.view.default, (root, list(out.shape)))
            joined.meta["val"] = out
            return root if out.shape == _value(root).shape else joined
    unchanged = (
        aten.mul.Scalar,
        aten.mul.Tensor,
        aten.div.Scalar,
        aten.div.Tensor,
        aten.pow.Tensor_Scalar,
    )
    return source if alike and op in unchanged and others in ((1,), (1.0,)) else None


def _folded(graph: Graph) -> list[Tensor]:
    """Compute what depends on shapes alone, as the beginnings of backward passes do, and make it
    inputs, which are returned."""
    constants: dict[Node, Any] = {}
    for node in graph.nodes:
        if (
            node.op == "call_function"
            and isinstance(node.target, torch._ops.OpOverload)
            and not node.target._schema.is_mutable
        ):
            drawn = torch.Tag.nondeterministic_seeded in node.target.tags
            known = node.target in LIKE or all(a in constants for a in node.all_input_nodes)
            value = _value(node)
            if known and not drawn and isinstance(value, Tensor) and value.numel() <= FOLDED:
                arguments = torch.fx.node.map_arg(
                    (node.args, node.kwargs),
                    lambda n: constants[n] if n in constants else _blank(n),
                )
                constants[node] = node.target(*arguments[0], **arguments[1])
    used = [node for node in constants if any(user not in constants for user in node.users)]
    place = [node for node in graph.nodes if node.op == "placeholder"][-1]
    for number, node in enumerate(used):
        with graph.inserting_after(place):
            place = graph.placeholder(f"constant_{number}")
        place.meta["val"] = _value(node)
        node.replace_all_uses_with(place)
    return [constants[node] for node in used]


def _blank(node: Node) -> Tensor:
    value = _value(node)
    return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device=value.device)


def _written(graph: Graph, held: Sequence[Tensor]) -> Callable[..., Sequence[Tensor]]:
    """Write the nodes of a graph down as a function of Python whose lines are calls of PyTorch's
    own functions."""
    names: dict[str, Any] = {}
    words: dict[Node, str] = {}

    def said(value: Any) -> str:
        if isinstance(value, Node):
            return words[value]
        if isinstance(value, (list, tuple)):
            return "[" + ", ".join(map(said, value)) + "]"
        if (
            value is None
            or isinstance(value, (bool, int, str))
            or (isinstance(value, float) and math.isfinite(value))
        ):
            return repr(value)
        names[f"c{len(names)}"] = value
        return f"c{len(names) - 1}"

    nodes = list(graph.nodes)
    last = {source: node for node in nodes for source in node.all_input_nodes}
    inputs: list[str] = []
    lines: list[str] = []
    placeholders = sum(node.op == "placeholder" for node in nodes)
    for number, node in enumerate(nodes):
        words[node] = f"v{number}"
        if node.op == "placeholder":
            if number < placeholders - len(held):
                inputs.append(words[node])
            else:
                names[words[node]] = held[number - placeholders + len(held)]
            continue
        if node.op == "output":
            lines.append(f"return {said(node.args[0])}")
            break
        if node.target is operator.getitem:
            lines.append(f"{words[node]} = {said(node.args[0])}[{node.args[1]}]")
        else:
            names[f"f{number}"] = _function(node)
            arguments = [said(a) for a in node.args] + [
                f"{k}={said(v)}" for k, v in node.kwargs.items()
            ]
            lines.append(f"{words[node]} = f{number}({', '.join(arguments)})")
        done = [words[n] for n in node.all_input_nodes if last[n] is node and words[n] not in names]
        if node not in last:
            done.append(words[node])
        if done:
            lines.append(f"del {', '.join(done)}")
    source = f"def run({', '.join(inputs)}):\n    " + "\n    ".join(lines)
    exec(compile(source, "<recorded step>", "exec"), names)
    return torch.no_grad()(names["run"])  # type: ignore[no-any-return]


def _function(node: Node) -> Callable[..., Any]:
    """Return the quickest way to call a node's operation."""
    overload: Any = node.target
    schema = overload._schema
    if node.kwargs:
        return overload._op  # type: ignore[no-any-return]
    name = schema.name.removeprefix("aten::")
    for place, kind in (
        (torch, types.BuiltinFunctionType),
        (torch.Tensor, types.MethodDescriptorType),
    ):
        found = getattr(place, name, None)
        if isinstance(found, kind):
            return found
    return overload._op  # type: ignore[no-any-return]
