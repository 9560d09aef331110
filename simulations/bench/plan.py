"""Seconds and memory that the analysis of a large model takes: a GPT of 134.6 million parameters, nothing computed.

Each turn is a process of its own, so that its peak memory is that of the analysis, with Python and torch themselves.
Nothing here passes or fails.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from strategies.analysis import analyse
from strategies.cuts import find_cuts
from strategies.tracing import trace

SCHEMA = "collegium/bench-plan/v1"


class Block(nn.Module):
    """A pre-norm transformer block with one projection for queries, keys and values."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attends and transforms; shape ``(batch, time, width)`` in and out."""
        batch, time_, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(batch, time_, 3, self.heads, width // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.proj(seen.transpose(1, 2).reshape(batch, time_, width))
        out: torch.Tensor = x + self.down(functional.gelu(self.up(self.norm2(x))))
        return out


class Gpt(nn.Module):
    """A decoder-only transformer; with ``tied``, the head is the embedding."""

    def __init__(self, words: int, width: int, heads: int, depth: int, length: int, *, tied: bool = False) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.places = nn.Parameter(torch.zeros(1, length, width))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, words, bias=False)
        if tied:
            self.head.weight = self.words.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """Returns the next word's scores; shape ``(batch, length)`` in, ``(batch, length, words)`` out."""
        x = self.words(tokens) + self.places
        for block in self.blocks:
            x = block(x)
        out: torch.Tensor = self.head(self.norm(x))
        return out


def large_gpt() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    """Returns a GPT of 134,601,216 parameters and an example of four texts, both without values."""
    with torch.device("meta"):
        return Gpt(32_000, 768, 12, 12, 512), (torch.zeros(4, 512, dtype=torch.long),)


def measure() -> dict[str, Any]:
    """Builds and analyses the model in this process; ``peak_bytes`` is the most that the process ever held."""
    began = time.perf_counter()
    model, inputs = large_gpt()
    built = time.perf_counter()
    analysis = analyse(trace(model, inputs), inputs)
    cuts = find_cuts(analysis)
    return {
        "parameters": analysis.parameters,
        "operations": len(analysis.nodes),
        "flops": analysis.flops,
        "cuts": len(cuts),
        "build_seconds": built - began,
        "analysis_seconds": time.perf_counter() - built,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures in turns, prints the medians, writes the JSON file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench") / "bench-plan.json")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--once", action="store_true", help="measure in this process and print JSON")
    chosen = parser.parse_args(arguments)
    if chosen.once:
        sys.stdout.write(json.dumps(measure()) + "\n")
        return
    turns = [in_own_process() for _ in range(chosen.turns)]
    result = {"schema": SCHEMA, "turns": turns}
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    seconds = statistics.median(turn["analysis_seconds"] for turn in turns)
    peak = statistics.median(turn["peak_bytes"] for turn in turns)
    sys.stdout.write(
        f"GPT of {turns[0]['parameters']:,} parameters, {turns[0]['operations']} operations, {turns[0]['cuts']} cuts,"
        f" {turns[0]['flops'] / 1e12:.2f} TFLOP: analysed in {seconds:.2f} s, peak {peak / 1e6:.0f} MB"
        f" (medians of {len(turns)})\nwritten: {chosen.out}\n"
    )


def in_own_process() -> dict[str, Any]:
    """Returns `measure` of a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "simulations.bench.plan", "--once"], capture_output=True, text=True, check=True
    )
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


if __name__ == "__main__":
    main()
