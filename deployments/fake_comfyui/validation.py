"""What ComfyUI says about a prompt before it is queued: which outputs can be computed, and what is wrong with the nodes of the others.

Values are coerced in place, as there: "64" becomes 64 for an INT.
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from deployments.fake_comfyui.comfy_node import Input, NodeClass, Site
from deployments.fake_comfyui.graph import Graph, JsonObject, sources_first

COERCIONS = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}
LONGEST_LISTED = 20  # choices that a message still quotes


class MalformedPrompt(Exception):
    """The prompt is no API graph at all, such as one in the UI's format: a real server answers 500."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What validation found."""

    outputs: list[str]  # that may be executed
    error: JsonObject | None = None  # why nothing may
    node_errors: JsonObject = field(default_factory=dict)


def validate_prompt(graph: Graph, targets: Collection[str] | None, classes: Mapping[str, NodeClass], site: Site) -> Verdict:
    """Validate every wanted output with what it needs.

    Raises:
        MalformedPrompt: not an API graph.
    """
    if not _is_object(graph) or not all(_is_object(comfy_node) for comfy_node in graph.values()):
        raise MalformedPrompt
    for node_id in graph:
        if (error := _find_missing_type(graph, node_id, classes)) is not None:
            return Verdict([], error)
    outputs = [node_id for node_id in graph if classes[graph[node_id]["class_type"]].is_output and (targets is None or node_id in targets)]
    if not outputs:
        return Verdict([], _prompt_error("prompt_no_outputs", "Prompt has no outputs"))
    return _Validation(graph, classes, site).judge(outputs)


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _prompt_error(kind: str, message: str, details: str = "", **extra_info: object) -> JsonObject:
    return {"type": kind, "message": message, "details": details, "extra_info": extra_info}


def _find_missing_type(graph: Graph, node_id: str, classes: Mapping[str, NodeClass]) -> JsonObject | None:
    class_type = graph[node_id].get("class_type")
    if isinstance(class_type, str) and class_type in classes:
        return None
    title = graph[node_id].get("_meta", {}).get("title")
    what = (
        f"Node '{title or class_type}' not found: is its custom node installed?"
        if class_type
        else f"Node '{title or node_id}' has no class_type"
    )
    return _prompt_error("missing_node_type", what, f"Node ID '#{node_id}'", node_id=node_id, class_type=class_type, node_title=title)


class _Validation:
    """One pass over a graph; each node is looked at once."""

    def __init__(self, graph: Graph, classes: Mapping[str, NodeClass], site: Site) -> None:
        self._graph = graph
        self._classes = classes
        self._site = site
        self._errors: dict[str, list[JsonObject]] = {}  # of the nodes seen so far
        self._valid: dict[str, bool] = {}  # false also where only a source is wrong
        self._path: list[str] = []

    def judge(self, outputs: list[str]) -> Verdict:
        good: list[str] = []
        own_errors: list[JsonObject] = []
        node_errors: JsonObject = {}
        for output in outputs:
            if self._is_valid_output(output):
                good.append(output)
                continue
            own_errors += self._errors[output]
            for node_id, errors in self._errors.items():
                if errors:
                    entry = {"errors": errors, "dependent_outputs": [], "class_type": self._graph[node_id]["class_type"]}
                    node_errors.setdefault(node_id, entry)["dependent_outputs"].append(output)
        if good:
            return Verdict(good, None, node_errors)
        details = "\n".join(f"{error['message']}: {error['details']}" for error in own_errors)
        return Verdict([], _prompt_error("prompt_outputs_failed_validation", "Prompt outputs failed validation", details), node_errors)

    def _is_valid_output(self, output: str) -> bool:
        try:
            self._visit_sources(output)
            return self._visit(output)
        except Exception as error:  # noqa: BLE001 -- ComfyUI reports any exception of its validation as an error of the node
            self._path.clear()
            info = {"exception_type": type(error).__name__, "traceback": traceback.format_tb(error.__traceback__)}
            self._refuse(output, [_prompt_error("exception_during_validation", "Exception when validating node", str(error), **info)])
            return False

    def _visit_sources(self, output: str) -> None:
        """Visit from the far end, so that no visit recurses; what raises is met again by the node that links to it."""
        for node_id in sources_first(self._graph, output):
            with contextlib.suppress(Exception):
                self._visit(node_id)
            self._path.clear()

    def _visit(self, node_id: str) -> bool:
        if node_id in self._path:
            self._refuse_cycle([*self._path[self._path.index(node_id) :], node_id])
            return False
        if node_id in self._valid:
            return self._valid[node_id]
        self._path.append(node_id)
        errors, sources_valid = self._check_inputs(node_id)
        self._path.pop()
        if node_id not in self._valid:  # unless a cycle closed here meanwhile
            self._errors[node_id] = errors
            self._valid[node_id] = sources_valid and not errors
        return self._valid[node_id]

    def _check_inputs(self, node_id: str) -> tuple[list[JsonObject], bool]:
        values = self._graph[node_id]["inputs"]
        node_class = self._classes[self._graph[node_id]["class_type"]]
        errors: list[JsonObject] = []
        sources_valid = True
        for spec in node_class.inputs:
            if spec.name not in values:
                errors += (
                    []
                    if spec.optional
                    else [_error("required_input_missing", "Required input is missing", spec.name, {"input_name": spec.name})]
                )
            elif isinstance(values[spec.name], list):
                error, valid = self._check_link(spec, values[spec.name])
                errors += [error] if error else []
                sources_valid = sources_valid and valid
            elif (error := self._check_value(spec, values, node_class)) is not None:
                errors.append(error)
        return errors + self._check_by_class(node_class, values), sources_valid

    def _check_link(self, spec: Input, link: list[Any]) -> tuple[JsonObject | None, bool]:  # whatever list a client sent
        """Return what is wrong with a link, and whether its source is valid."""
        info = {"input_name": spec.name, "input_config": self._config(spec)}
        if len(link) != 2:
            message = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            return _error("bad_linked_input", message, spec.name, info | {"received_value": link}), True
        received = self._classes[self._graph[link[0]]["class_type"]].outputs[link[1]]
        wanted = self._config(spec)[0]
        if not _types_meet(received, wanted):
            details = f"{spec.name}, received_type({received}) mismatch input_type({wanted})"
            extra = info | {"received_type": received, "linked_node": link}
            return _error("return_type_mismatch", "Return type mismatch between linked nodes", details, extra), True
        return None, self._is_valid_source(link, info)

    def _is_valid_source(self, link: list[Any], info: JsonObject) -> bool:  # [node id, slot]
        depth = len(self._path)
        try:
            return self._visit(link[0])
        except Exception as error:  # noqa: BLE001 -- ComfyUI reports any exception of its validation as an error of the node
            del self._path[depth:]
            extra = {
                "exception_message": str(error),
                "exception_type": type(error).__name__,
                "traceback": traceback.format_tb(error.__traceback__),
                "linked_node": link,
            }
            reason = _error("exception_during_inner_validation", "Exception when validating inner node", str(error), info | extra)
            self._refuse(link[0], [reason])
            return False

    def _check_value(self, spec: Input, values: JsonObject, node_class: NodeClass) -> JsonObject | None:
        config = self._config(spec)
        value = values[spec.name]
        if isinstance(value, dict) and "__value__" in value:
            value = values[spec.name] = value["__value__"]
        info = {"input_name": spec.name, "input_config": config, "received_value": value}
        kind, options = config
        coerce = COERCIONS.get(kind) if isinstance(kind, str) else None
        if coerce is not None:
            try:
                value = values[spec.name] = coerce(value)
            except (ValueError, TypeError, OverflowError) as error:
                message = f"Failed to convert an input value to a {kind} value"
                return _error("invalid_input_type", message, f"{spec.name}, {value}, {error}", info | {"exception_message": str(error)})
        if spec.name == node_class.checked_input:
            return None
        return _check_range(spec, value, options, info | {"received_value": value}) or _check_choice(spec, value, config, info)

    def _check_by_class(self, node_class: NodeClass, values: JsonObject) -> list[JsonObject]:
        name = node_class.checked_input
        if node_class.check is None or name is None or name not in values or isinstance(values[name], list):
            return []
        trouble = node_class.check(self._site, values[name])
        message = "Custom validation failed for node"
        return [_error("custom_validation_failed", message, f"{name} - {trouble}", {"input_name": name})] if trouble else []

    def _config(self, spec: Input) -> list[Any]:  # a type and its options are JSON of any shape
        described = spec.describe(self._site)
        return described if len(described) == 2 else [described[0], {}]

    def _refuse(self, node_id: str, errors: list[JsonObject]) -> None:
        self._errors[node_id] = errors
        self._valid[node_id] = False

    def _refuse_cycle(self, path: list[str]) -> None:
        members = list(dict.fromkeys(path))
        details = " -> ".join(f"{node_id} ({self._graph[node_id]['class_type']})" for node_id in path)
        for node_id in members:
            extra = {"node_id": node_id, "cycle_nodes": members}
            self._refuse(node_id, [_error("dependency_cycle", "Dependency cycle detected", details, extra)])


def _error(kind: str, message: str, details: str, extra_info: JsonObject) -> JsonObject:
    return {"type": kind, "message": message, "details": details, "extra_info": extra_info}


def _types_meet(received: str, wanted: object) -> bool:
    if not isinstance(wanted, str):
        return False
    return "*" in {received, wanted} or not {part.strip() for part in received.split(",")}.isdisjoint(
        part.strip() for part in wanted.split(",")
    )


def _check_range(spec: Input, value: Any, options: JsonObject, info: JsonObject) -> JsonObject | None:  # noqa: ANN401 -- compared as ComfyUI does
    if "min" in options and value < options["min"]:
        return _error("value_smaller_than_min", f"Value {value} smaller than min of {options['min']}", spec.name, info)
    if "max" in options and value > options["max"]:
        return _error("value_bigger_than_max", f"Value {value} bigger than max of {options['max']}", spec.name, info)
    return None


def _check_choice(spec: Input, value: object, config: list[Any], info: JsonObject) -> JsonObject | None:  # config: see _config
    choices = config[0] if isinstance(config[0], list) else config[1].get("options") if config[0] == "COMBO" else None
    if choices is None or value in choices:
        return None
    if len(choices) > LONGEST_LISTED:
        listed, info = f"(list of length {len(choices)})", info | {"input_config": None}
    else:
        listed = str(choices)
    return _error("value_not_in_list", "Value not in list", f"{spec.name}: '{value}' not in {listed}", info)
