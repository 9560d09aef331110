"""Where a traced model can be cut in two, and the pieces between cuts.

A cut is valid if exactly one tensor crosses it. A piece is a graph of its own whose modules keep the model's names, so
the keys of all pieces together are the model's keys, and a piece shares the model's very parameters. Between parties
travel names and a digest, never a graph: each builds its piece from model code that it installed itself.
"""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import rfc8785
from torch import fx

from privacy.errors import ConfigError, VerificationError
from strategies.analysis import Analysis
from strategies.tracing import Trace

_FORMAT = "collegium/piece/v1"


@dataclass(frozen=True)
class Cut:
    """A place where one tensor passes from the head to the tail; FLOPs and bytes are for the example inputs.

    Attributes:
      node: The operation whose value crosses; unique in the model.
      position: Of that operation in the analysis.
      head_params: Parameters in front of the cut; ``head_bytes`` is what they take.
      bytes: Size of what crosses, one way.
      share: Part of the model's parameters in front of the cut, from 0 to 1.
      shared_keys: Names of parameters that both sides use; such a cut is listed and never planned.
      input_ratio: Numbers that cross, against numbers in the inputs.
      note: What crossing it gives away, as far as shapes can tell.
    """

    node: str
    what: str
    position: int
    head_flops: int
    tail_flops: int
    head_params: int
    head_bytes: int
    tail_bytes: int
    bytes: int
    share: float
    shared_keys: tuple[str, ...]
    input_ratio: float
    note: str


@dataclass(frozen=True)
class Piece:
    """A part of a model from one cut to the next, described for another party; all public.

    Attributes:
      start: The node whose value comes in; empty for the model's inputs.
      end: The node whose value goes out; empty for the model's output.
      keys: Names in the model's state dict that the piece holds, sorted.
      digest: SHA-256, in hexadecimal, of the piece's code, of its layers' settings and of its keys' shapes.
    """

    start: str
    end: str
    keys: tuple[str, ...]
    digest: str


def find_cuts(analysis: Analysis) -> tuple[Cut, ...]:
    """Returns all valid cuts, from the inputs to the output, one for each value that can cross.

    A value that a later operation changes in place cannot cross; what follows that operation can.
    """
    nodes = analysis.nodes
    open_until = max(analysis.after_inputs, default=-1)  # last operation that uses anything made so far but this node
    cuts = []
    for position, node in enumerate(nodes[:-1]):
        if open_until <= position < node.feeds and node.tensor and not node.changed:
            cuts.append(_cut(analysis, position))
        open_until = max(open_until, node.feeds)
    return tuple(cuts)


def split(traced: Trace, cuts: Sequence[Cut], *, unsafe_shared: bool = False) -> tuple[Piece, ...]:
    """Describes the pieces between cuts.

    Args:
      traced: The model.
      cuts: In the order of the model, each once.
      unsafe_shared: Accept cuts with parameters on both sides: the two copies drift apart as soon as they train.

    Raises: ConfigError: A cut that parts a shared parameter, or cuts out of order.
    """
    shared = [cut for cut in cuts if cut.shared_keys]
    if shared and not unsafe_shared:
        raise ConfigError(
            f"the cut after {shared[0].node} leaves {', '.join(shared[0].shared_keys)} on both sides",
            hint="Cut elsewhere, or untie the parameters.",
        )
    if any(first.position >= second.position for first, second in itertools.pairwise(cuts)):
        raise ConfigError("cuts must be given in the order of the model, each once")
    ends = ("", *(cut.node for cut in cuts), "")
    pieces = []
    for start, end in itertools.pairwise(ends):
        module = _piece(traced, start, end)
        pieces.append(Piece(start, end, tuple(sorted(module.state_dict())), _digest(module)))
    return tuple(pieces)


def build(traced: Trace, piece: Piece) -> fx.GraphModule:
    """Builds a piece from a party's own model.

    The first piece takes the model's inputs, any other the one tensor that crosses its first cut. It shares the model's
    parameters, and follows its training or evaluation mode layer by layer.

    Raises: ConfigError: The model has no such nodes.
      VerificationError: The party's own model code gives another piece than the one described.
    """
    module = _piece(traced, piece.start, piece.end)
    if _digest(module) != piece.digest:
        raise VerificationError(
            f"this model's piece from {piece.start or 'the inputs'} to {piece.end or 'the output'} is another one",
            hint="Both sides need the same model code, the same mode and the same version of torch.",
        )
    return module


def _cut(analysis: Analysis, position: int) -> Cut:
    head, tail = analysis.nodes[: position + 1], analysis.nodes[position + 1 :]
    head_params = sum(node.parameters for node in head)
    head_flops = sum(node.flops for node in head)
    node = head[-1]
    ratio = node.items / max(analysis.input_items, 1)
    return Cut(
        node=node.name,
        what=node.what,
        position=position,
        head_flops=head_flops,
        tail_flops=analysis.flops - head_flops,
        head_params=head_params,
        head_bytes=sum(each.trained + each.fixed for each in head),
        tail_bytes=sum(each.trained + each.fixed for each in tail),
        bytes=node.bytes,
        share=head_params / analysis.parameters if analysis.parameters else 0.0,
        shared_keys=_shared(analysis, position),
        input_ratio=ratio,
        note=_note(ratio, head_params),
    )


def _shared(analysis: Analysis, position: int) -> tuple[str, ...]:
    """Returns the keys on either side whose tensor is used on both."""
    sides = [
        {key for node in nodes for key in node.keys}
        for nodes in (analysis.nodes[: position + 1], analysis.nodes[position + 1 :])
    ]
    both = sides[0] & sides[1]
    for group in analysis.tied:
        if all(group & side for side in sides):
            both |= group & (sides[0] | sides[1])
    return tuple(sorted(both))


def _note(ratio: float, head_params: int) -> str:
    """Says what shapes alone can tell about a cut; how well it is inverted in fact has to be measured."""
    if not head_params:
        return "the inputs, or a fixed function of them"
    if ratio >= 1:
        return "no smaller than the inputs: expect them to be recovered"
    return f"{100 * ratio:.2g} % of the inputs' size: still personal data"


def _piece(traced: Trace, start: str, end: str) -> fx.GraphModule:
    whole = list(traced.module.graph.nodes)
    names = {node.name: index for index, node in enumerate(whole)}
    for name in (start, end):
        if name and name not in names:
            raise ConfigError(f"{type(traced.model).__name__} has no operation {name!r} to cut after")
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}

    def copied(node: fx.Node) -> fx.Node:
        if node not in copies and node.op == "get_attr":  # a parameter belongs where it is used
            copies[node] = graph.node_copy(node)
        return copies[node]

    first = names[start] + 1 if start else 0
    last = names[end] + 1 if end else len(whole)
    if start:
        copies[whole[first - 1]] = graph.placeholder(start)
    for node in whole[first:last]:
        if node.op != "get_attr":
            copies[node] = graph.node_copy(node, copied)
    if end:
        graph.output(copies[whole[last - 1]])
    return fx.GraphModule(traced.module, graph, f"{type(traced.model).__name__}Piece")


def _digest(module: fx.GraphModule) -> str:
    layers = {str(node.target): repr(module.get_submodule(str(node.target))) for node in module.graph.nodes
              if node.op == "call_module"}  # fmt: skip
    keys = {
        key: [str(tensor.dtype).removeprefix("torch."), *tensor.shape] for key, tensor in module.state_dict().items()
    }
    described: dict[str, Any] = {"format": _FORMAT, "code": module.code, "layers": layers, "keys": keys}
    return hashlib.sha256(rfc8785.dumps(described)).hexdigest()
