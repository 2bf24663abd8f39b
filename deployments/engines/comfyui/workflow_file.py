"""The description of a workflow, which stands in ``<name>.yaml`` beside its graph ``<name>.json``.

::

    title: Text to image
    description: one picture from a description in words
    tags: [image]
    parameters:
      prompt:     {type: string, bind: 6.text, multiline: true, required: true}
      seed:       {type: seed, bind: 3.seed, default: -1}
      checkpoint: {type: choice, bind: 4.ckpt_name, default: first_choice}
    outputs: ["9"]
    scenario: {message: 文生图任务已提交}

A file makes an endpoint with typed inputs; no code is needed. An uploaded workflow carries the same as JSON.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BeforeValidator, Field, ValidationError, model_validator

from deployments.engines.comfyui.graph import detect_format, read_workflow, unwrap
from deployments.engines.comfyui.seeds import LARGEST_SEED, RANDOM_SEED
from deployments.engines.comfyui.values import Refusal, ValueType, Wanted, coerce
from deployments.jobs.errors import InvalidInput, ServiceError
from deployments.jobs.model import JsonObject
from deployments.jobs.spec import StrictModel

FIRST_CHOICE = "first_choice"  # a default: the graph's own value where the chosen backend offers it, else the first that it offers
MAX_PARAMETERS = 200
WORKFLOW_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")

ParameterType = Literal["string", "integer", "number", "boolean", "choice", "seed", "image", "mask", "audio", "video"]
MEDIA_TYPES = frozenset({"image", "mask", "audio", "video"})

_VALUE_TYPES: dict[str, ValueType] = {"seed": "integer", **dict.fromkeys(MEDIA_TYPES, "string")}


def _one_or_several(value: Any) -> Any:  # noqa: ANN401 -- a before-validator sees whatever was sent
    return [value] if isinstance(value, str) else value


PlaceName = Annotated[str, Field(min_length=1, max_length=300, examples=["6.text"])]
ParameterName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")]
Number = int | Annotated[float, Field(allow_inf_nan=False)]  # what JSON can carry
Scalar = bool | Number | str


class ParameterSpec(StrictModel):
    """One typed input of a workflow."""

    type: ParameterType
    bind: Annotated[tuple[PlaceName, ...], BeforeValidator(_one_or_several), Field(max_length=50)] = ()
    default: Scalar | None = None  # None: the graph's own value stays
    minimum: Number | None = None
    maximum: Number | None = None
    step: Number | None = None
    choices: Annotated[tuple[Scalar, ...], Field(min_length=1, max_length=1000)] | None = None  # None: those of the backend
    multiline: bool = False
    required: bool = False
    description: Annotated[str, Field(max_length=2000)] = ""

    @property
    def is_media(self) -> bool:
        """Whether it takes a media reference."""
        return self.type in MEDIA_TYPES

    @property
    def wanted(self) -> Wanted:
        """What values it takes. A seed takes -1 for a random one."""
        low = RANDOM_SEED if self.type == "seed" else self.minimum
        high = LARGEST_SEED if self.type == "seed" and self.maximum is None else self.maximum
        return Wanted(_VALUE_TYPES.get(self.type) or self.type, low, high, self.choices)  # type: ignore[arg-type] # the rest are value types

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.choices is not None and self.type != "choice":
            raise ValueError("only a parameter of type choice has choices")
        if self.type not in {"integer", "number", "seed"} and (self.minimum, self.maximum, self.step) != (None, None, None):
            raise ValueError("only numbers have minimum, maximum and step")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError("minimum is above maximum")
        if self.required and self.default is not None:
            raise ValueError("a required parameter has no default")
        self._check_default()
        return self

    def _check_default(self) -> None:
        if self.default is None or (self.type == "choice" and self.default == FIRST_CHOICE and self.choices is None):
            return
        found = coerce(self.default, self.wanted)
        if isinstance(found, Refusal):
            raise ValueError(f"the default {found.message}")  # noqa: TRY004 -- pydantic turns a ValueError into an error of the field
        if type(found.value) is not type(self.default):  # a schema shows it as it is written
            raise ValueError(f"the default {self.default!r} has to be written as {found.value!r}")


class ScenarioMeta(StrictModel):
    """Offers a workflow as a scenario of the gateway dialect; what its clients are told when one is accepted."""

    message: Annotated[str, Field(max_length=200)] = ""  # Chinese, as that service speaks
    message_en: Annotated[str, Field(max_length=200)] = ""


class WorkflowMeta(StrictModel):
    """What a person and a program need to know to run a workflow."""

    title: Annotated[str, Field(max_length=200)] = ""
    description: Annotated[str, Field(max_length=4000)] = ""
    tags: Annotated[tuple[Annotated[str, Field(max_length=50)], ...], Field(max_length=50)] = ()
    parameters: Annotated[dict[ParameterName, ParameterSpec], Field(max_length=MAX_PARAMETERS)] = Field(default_factory=dict)
    outputs: Annotated[tuple[PlaceName, ...], Field(max_length=200)] | None = None  # node ids or titles; None: all
    scenario: ScenarioMeta | None = None


@dataclass(frozen=True, slots=True)
class WorkflowFile:
    """A workflow of a folder."""

    name: str
    graph: JsonObject  # either format
    meta: WorkflowMeta


@dataclass(frozen=True, slots=True)
class FileProblem:
    """Why a file of a folder was left out."""

    file: str  # its name, without the folder
    reason: str


def workflow_name(text: str) -> str:
    """Return a name that is safe as a file's and in a URL.

    Raises:
        InvalidInput: it is not.
    """
    if not WORKFLOW_NAME.fullmatch(text):
        raise InvalidInput("a workflow's name has 1 to 64 characters: small letters, digits, - and _, the first a letter or digit")
    return text


def read_meta(raw: object) -> WorkflowMeta:
    """Read a description.

    Raises:
        InvalidInput: names each field that is wrong.
    """
    try:
        return WorkflowMeta.model_validate(raw)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, one['loc'])) or 'the description'}: {one['msg']}" for one in error.errors(include_url=False)[:5]]
        raise InvalidInput("the description of the workflow is wrong: " + "; ".join(wrong)) from None


def load_workflow_folder(path: Path) -> tuple[tuple[WorkflowFile, ...], tuple[FileProblem, ...]]:
    """Load the ``*.json`` of a folder by name, each with its ``.yaml`` where there is one.

    Returns:
        The workflows, and the files that could not be read, which hide none of the others.
    """
    workflows: list[WorkflowFile] = []
    problems: list[FileProblem] = []
    if not path.is_dir():
        return (), (FileProblem(path.name, "there is no such folder"),)
    for file in sorted(path.glob("*.json")):
        try:
            workflows.append(_load(file))
        except ServiceError as error:
            problems.append(FileProblem(file.name, str(error)))
        except OSError as error:
            problems.append(FileProblem(file.name, error.strerror or "cannot be read"))
    orphans = [file.name for file in sorted(path.glob("*.yaml")) if not file.with_suffix(".json").exists()]
    problems += [FileProblem(name, "describes a workflow that is not there") for name in orphans]
    return tuple(workflows), tuple(problems)


def _load(file: Path) -> WorkflowFile:
    name = workflow_name(file.stem)
    graph = unwrap(read_workflow(file.read_bytes()))
    detect_format(graph)
    described = file.with_suffix(".yaml")
    meta = read_meta(_read_yaml(described)) if described.exists() else WorkflowMeta()
    return WorkflowFile(name, graph, meta if meta.title else meta.model_copy(update={"title": name}))


def _read_yaml(file: Path) -> object:
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise InvalidInput(f"{file.name} is not YAML in UTF-8{where}") from None
