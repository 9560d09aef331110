"""What each operation of a traced model costs: FLOPs, parameters, bytes of activations. Nothing is computed.

Costs come from one run on the ``meta`` device, where tensors have shapes and no values, so a model of any size is
analysed in seconds and without memory for its weights. FLOPs are two per multiplication of a matrix product,
convolution or attention, as torch counts them; additions, norms and activation functions count nothing. A backward
pass takes about twice the forward's.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import fx, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils.flop_counter import FlopCounterMode

from privacy.errors import ConfigError
from strategies.tracing import Inputs, Trace

_RECURRENT = (nn.RNNBase, nn.RNNCellBase)


@dataclass(frozen=True)
class NodeCost:
    """One operation of the graph; bytes and FLOPs are of the forward pass over the example inputs.

    Attributes:
      name: Unique in the graph.
      what: The layer or function.
      feeds: Position of the last operation that uses its value.
      keys: Names in the state dict that it uses.
      parameters: Parameters that no earlier operation uses.
      trained: Bytes of those that are trained.
      fixed: Bytes of the rest, and of buffers such as running statistics.
      flops: Estimated if ``estimated`` says so.
      items: Numbers in its value; ``bytes`` is their size.
      tensor: Its value is one tensor of floating-point numbers, which may pass from one party to another.
      changed: A later operation changes the value in place.
      kept: Bytes made here that the backward pass needs, its own value among them if that is needed.
      live: Bytes of all values that must exist while it runs, parameters apart.
    """

    name: str
    what: str
    feeds: int
    keys: frozenset[str]
    parameters: int
    trained: int
    fixed: int
    flops: int
    estimated: bool
    items: int
    bytes: int
    tensor: bool
    changed: bool
    kept: int
    live: int


@dataclass(frozen=True)
class Analysis:
    """A traced model with its costs.

    Attributes:
      nodes: In the order in which they run; inputs and constants are not among them.
      input_bytes: Size of the example inputs; ``output_bytes`` that of what the model returns for them.
      input_items: Numbers in the example inputs.
      records: First dimension of the first input.
      after_inputs: For each input, the position of the last operation that uses it; -1 for none.
      tied: Groups of keys that are one tensor.
      unused: Keys that no operation uses.
      notes: What a person should know, a sentence each.
    """

    trace: Trace
    nodes: tuple[NodeCost, ...]
    input_bytes: int
    output_bytes: int
    input_items: int
    records: int
    after_inputs: tuple[int, ...]
    tied: tuple[frozenset[str], ...]
    unused: frozenset[str]
    notes: tuple[str, ...]

    @cached_property
    def flops(self) -> int:
        """FLOPs of the forward pass."""
        return sum(node.flops for node in self.nodes)

    @cached_property
    def parameters(self) -> int:
        """Parameters, each tensor counted once."""
        return sum(node.parameters for node in self.nodes)


def analyse(traced: Trace, inputs: Inputs) -> Analysis:
    """Measures every operation of a traced model.

    Args:
      traced: Its weights are neither read nor copied.
      inputs: Example inputs; only shapes and types count, unless the model's code asks for values.

    Raises: ConfigError: The model cannot run on these inputs.
    """
    notes = list(traced.notes)
    try:
        meter = _run(traced, inputs, on_meta=True)
    except _RunError as error:
        if any(tensor.is_meta for tensor in (*inputs, *traced.module.state_dict().values())):
            raise error.plain(traced) from error
        # Code that looks at values cannot run without them: run it on the example, and say so.
        notes.append(f"it cannot run without values ({error.reason}), so it was measured on the example inputs")
        try:
            meter = _run(traced, inputs, on_meta=False)
        except _RunError as again:
            raise again.plain(traced) from again
    nodes, after_inputs = _costs(traced, meter)
    used = frozenset(key for node in nodes for key in node.keys)
    estimated = [node.name for node in nodes if node.estimated]
    if estimated:
        notes.append(f"FLOPs of recurrent layers are estimated: {', '.join(estimated)}")
    return Analysis(
        trace=traced,
        nodes=nodes,
        input_bytes=_size(inputs),
        output_bytes=_size(meter.returned),
        input_items=sum(tensor.numel() for tensor in inputs),
        records=inputs[0].shape[0] if inputs and inputs[0].dim() else 1,
        after_inputs=after_inputs,
        tied=_tied(traced.model),
        unused=frozenset(traced.model.state_dict()) - used,
        notes=tuple(notes),
    )


class _RunError(Exception):
    def __init__(self, node: fx.Node, error: Exception) -> None:
        self.reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:160]
        self.node = node
        super().__init__(self.reason)

    def plain(self, traced: Trace) -> ConfigError:
        return ConfigError(
            f"{type(traced.model).__name__} does not run on the example inputs: at {self.node.name}: {self.reason}",
            hint="Check the example inputs' shapes and types.",
        )


class _Meter(fx.Interpreter):
    """Runs a graph and notes, per operation, what it computed, returned and kept for the backward pass."""

    def __init__(self, module: fx.GraphModule, counter: FlopCounterMode) -> None:
        super().__init__(module, garbage_collect_values=False)
        self._counter = counter
        self._weights = {_storage(tensor) for tensor in module.state_dict(keep_vars=True).values()}
        self._made: dict[int, fx.Node] = {}
        self.flops: dict[fx.Node, int] = {}
        self.values: dict[fx.Node, Any] = {}
        self.versions: dict[fx.Node, tuple[int, ...]] = {}
        self.kept: dict[fx.Node, dict[int, int]] = {}
        self.returned: Any = None
        self._alive: list[torch.Tensor] = []  # so that no storage's identity is used twice

    def run_node(self, n: fx.Node) -> Any:
        before = self._counter.get_total_flops()
        self.kept[n] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            self._alive.append(tensor)
            storage = _storage(tensor)
            if storage not in self._weights:
                self.kept[self._made.get(storage, n)][storage] = tensor.untyped_storage().nbytes()
            return tensor

        try:
            with torch.autograd.graph.saved_tensors_hooks(keep, _same):
                value = super().run_node(n)
        except Exception as error:
            raise _RunError(n, error) from error
        self.flops[n] = self._counter.get_total_flops() - before
        self.values[n] = value
        self.versions[n] = _versions(value)
        for tensor in _tensors(value):
            self._made.setdefault(_storage(tensor), n)
        return value


def _run(traced: Trace, inputs: Inputs, *, on_meta: bool) -> _Meter:
    # A copy in both cases: running a model in training mode moves the statistics of its norms.
    module = _copied(traced.module, to_meta=on_meta)
    arguments = tuple(torch.empty_like(each, device="meta") if on_meta else each.clone() for each in inputs)
    device = torch.device("meta") if on_meta or not inputs else inputs[0].device
    # Torch's fused attention is not counted; its fused encoder is not taken where a device is set like this.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, device:
        meter = _Meter(module, counter)
        meter.returned = meter.run(*arguments)
    return meter


def _costs(traced: Trace, meter: _Meter) -> tuple[tuple[NodeCost, ...], tuple[int, ...]]:
    """Returns the cost of each operation, and for each input the last operation that uses it."""
    nodes = list(meter.values)
    steps = [node for node in nodes if node.op not in {"placeholder", "get_attr", "output"}]
    position = {node: index for index, node in enumerate(steps)}

    def last_use(node: fx.Node) -> int:
        return max((position.get(user, len(steps)) for user in node.users), default=-1)

    feeds = [max(last_use(node), index) for index, node in enumerate(steps)]
    inputs = [node for node in nodes if node.op == "placeholder"]
    after_inputs = tuple(last_use(node) for node in inputs)
    live = _live(
        [
            *((0, last, _size(meter.values[node])) for node, last in zip(inputs, after_inputs, strict=True)),
            *((index, last, _size(meter.values[steps[index]])) for index, last in enumerate(feeds)),
        ],
        len(steps),
    )
    owner = _Owner(traced, meter)
    costs = (_cost(node, meter, owner, feeds[index], live[index]) for index, node in enumerate(steps))
    return tuple(costs), after_inputs


def _cost(node: fx.Node, meter: _Meter, owner: "_Owner", feeds: int, live: int) -> NodeCost:
    value = meter.values[node]
    layer = meter.module.get_submodule(str(node.target)) if node.op == "call_module" else None
    keys = owner.keys(node)
    parameters, trained, fixed = owner.first_used(keys)
    estimated = layer is not None and any(isinstance(each, _RECURRENT) for each in layer.modules())
    flops = meter.flops[node]
    if isinstance(layer, _RECURRENT):
        flops = _recurrent_flops(layer, node, meter)
    return NodeCost(
        name=node.name,
        what=type(layer).__name__ if layer is not None else getattr(node.target, "__name__", str(node.target)),
        feeds=feeds,
        keys=keys,
        parameters=parameters,
        trained=trained,
        fixed=fixed,
        flops=flops,
        estimated=estimated,
        items=sum(tensor.numel() for tensor in _tensors(value)),
        bytes=_size(value),
        tensor=isinstance(value, torch.Tensor) and value.is_floating_point(),
        changed=_versions(value) != meter.versions[node],
        kept=sum(meter.kept[node].values()),
        live=live,
    )


def _recurrent_flops(layer: nn.Module, node: fx.Node, meter: _Meter) -> int:
    """Returns two per weight and position: torch's counter does not look inside fused recurrent layers."""
    first: torch.Tensor = meter.values[node.all_input_nodes[0]]
    positions = first.numel() // max(first.shape[-1], 1)
    return 2 * sum(weight.numel() for weight in layer.parameters() if weight.dim() > 1) * positions


class _Owner:
    """Which keys an operation uses, and which tensors are used for the first time; asked in order."""

    def __init__(self, traced: Trace, meter: _Meter) -> None:
        self._keys = frozenset(traced.model.state_dict())
        self._tensors = meter.module.state_dict(keep_vars=True)
        self._seen: set[int] = set()

    def keys(self, node: fx.Node) -> frozenset[str]:
        found = {str(each.target) for each in node.all_input_nodes if each.op == "get_attr"} & self._keys
        if node.op == "call_module":
            found |= {key for key in self._keys if key.startswith(f"{node.target}.")}
        return frozenset(found)

    def first_used(self, keys: frozenset[str]) -> tuple[int, int, int]:
        parameters = trained = fixed = 0
        for key in sorted(keys):
            tensor = self._tensors[key]
            if id(tensor) in self._seen:
                continue
            self._seen.add(id(tensor))
            parameters += tensor.numel() if isinstance(tensor, nn.Parameter) else 0
            if tensor.requires_grad:
                trained += _size(tensor)
            else:
                fixed += _size(tensor)
        return parameters, trained, fixed


def _live(values: list[tuple[int, int, int]], n_steps: int) -> list[int]:
    """Returns per step the bytes of all values made by then and used then or later; each (made, last use, bytes)."""
    change = [0] * (n_steps + 2)
    for made, last, size in values:
        change[made] += size
        change[max(last, made) + 1] -= size
    live, total = [], 0
    for step in range(n_steps):
        total += change[step]
        live.append(total)
    return live


def _tied(model: nn.Module) -> tuple[frozenset[str], ...]:
    names: dict[int, set[str]] = {}
    for key, tensor in model.state_dict(keep_vars=True).items():
        names.setdefault(id(tensor), set()).add(key)
    return tuple(frozenset(group) for group in names.values() if len(group) > 1)


def _copied(module: fx.GraphModule, *, to_meta: bool) -> fx.GraphModule:
    """Returns a copy; on ``meta`` its weights are shapes, and those of the original are never copied."""
    known: dict[int, Any] = {}
    if to_meta:
        for each in module.modules():
            for tensor in _own_tensors(each):
                known[id(tensor)] = _shape_of(tensor)
    try:
        return copy.deepcopy(module, known)
    except Exception as error:
        raise ConfigError(f"{type(module).__name__} cannot be copied: {error}") from error


def _own_tensors(module: nn.Module) -> Iterator[torch.Tensor]:
    attributes: Mapping[str, Any] = vars(module)
    for value in (*attributes.values(), *module._parameters.values(), *module._buffers.values()):  # noqa: SLF001 - plain attributes must be found too, so torch's accessors do not do
        if isinstance(value, torch.Tensor):
            yield value


def _shape_of(tensor: torch.Tensor) -> torch.Tensor:
    empty = torch.empty_like(tensor, device="meta")
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(empty, requires_grad=tensor.requires_grad)
    return empty.detach()


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _size(value: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in _tensors(value))


def _versions(value: Any) -> tuple[int, ...]:
    return tuple(tensor._version for tensor in _tensors(value))  # noqa: SLF001 - the only sign of a change in place


def _storage(tensor: torch.Tensor) -> int:
    identity: int = tensor.untyped_storage()._cdata  # noqa: SLF001 - on meta all data pointers are 0
    return identity


def _same(tensor: torch.Tensor) -> torch.Tensor:
    return tensor
