"""Results of nodes by what they were computed from: a node whose class, inputs and sources are as before is not executed again.

As in ComfyUI, only results that the present prompt could use are kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from deployments.fake_comfyui.graph import Graph, JsonObject, is_link, sources_first

FingerprintOf = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class CachedResult:
    """What a node gave."""

    values: tuple[object, ...]
    ui: JsonObject | None


class NodeCache:
    """Results by signature, and the signatures of the prompt at hand."""

    def __init__(self) -> None:
        self._results: dict[str, CachedResult] = {}
        self._signatures: dict[str, str | None] = {}

    def open(self, graph: Graph, fingerprint_of: FingerprintOf) -> None:
        """Take up a prompt. ``fingerprint_of`` tells, by node id, what the inputs do not show; None: never cached."""
        self._signatures = _sign(graph, fingerprint_of)
        alive = set(self._signatures.values())
        self._results = {signature: result for signature, result in self._results.items() if signature in alive}

    def get(self, node_id: str) -> CachedResult | None:
        """Return the result of a node of the prompt at hand."""
        signature = self._signatures.get(node_id)
        return self._results.get(signature) if signature else None

    def put(self, node_id: str, result: CachedResult) -> None:
        """Keep a result; one without a signature is kept for this prompt only."""
        signature = self._signatures.get(node_id) or f"once/{node_id}"
        self._signatures[node_id] = signature
        self._results[signature] = result

    def clear(self) -> None:
        """Forget all."""
        self._results.clear()
        self._signatures.clear()


def _sign(graph: Graph, fingerprint_of: FingerprintOf) -> dict[str, str | None]:
    """Sign every node with its class, values and the signatures of its sources; None where a source is missing or a cycle closes."""
    signatures: dict[str, str | None] = {}

    def sign(node_id: str) -> str | None:
        if node_id not in signatures:
            signatures[node_id] = None  # what a cycle finds when it comes back here
            signatures[node_id] = compute(node_id) if node_id in graph else None
        return signatures[node_id]

    def compute(node_id: str) -> str | None:
        inputs = graph[node_id].get("inputs", {})
        sources = {name: sign(value[0]) for name, value in inputs.items() if is_link(value)}
        fingerprint = fingerprint_of(node_id)
        if fingerprint is None or None in sources.values():
            return None
        values = {name: [sources[name], value[1]] if name in sources else value for name, value in inputs.items()}
        text = json.dumps([graph[node_id]["class_type"], fingerprint, sorted(sources), values], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    for output in graph:
        for node_id in sources_first(graph, output) if output not in signatures else ():
            sign(node_id)
    return signatures
