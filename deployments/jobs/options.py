"""How a job is run, whatever its kind: the part of a request that the engines never see."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

from deployments.jobs.model import JsonObject
from deployments.jobs.spec import StrictModel
from deployments.jobs.webhook import WebhookTarget

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
MAX_LABELS = 16


def _check_count(labels: Any) -> Any:  # noqa: ANN401 -- a before-validator sees whatever the client sent
    # Before the labels themselves are looked at: each wrong one is an error of its own.
    if isinstance(labels, dict) and len(labels) > MAX_LABELS:
        raise PydanticCustomError("too_many_labels", "a job has at most {most} labels", {"most": MAX_LABELS})
    return labels


LabelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,63}$")]
LabelValue = Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{0,255}$")]


class Consent(StrictModel):
    """Who agreed that a face or voice is changed, and where that is written down."""

    who: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,200}$", description="the person shown, or a code for them")]
    reference: Annotated[
        str, Field(pattern=r"^[^\x00-\x1f\x7f]{1,500}$", description="where the agreement is kept, such as a contract's number")
    ]


class JobOptions(StrictModel):
    """Identity, order, limits and labels of a job."""

    id: str | None = Field(
        None,
        pattern=rf"^{UUID.pattern}$",
        description="made by the client: sending the request again then finds the job instead of making another",
        examples=["5d1c1f0e-58c2-4d0a-9f8b-0d8a7a4c9b11"],
    )
    priority: int = Field(0, ge=-100, le=100, description="higher leaves the queue first; age decides between equals")
    max_attempts: int = Field(3, ge=1, le=10, description="tries before a retryable failure is final")
    timeout_s: float = Field(3600.0, ge=1, le=86400, description="running time of one attempt, seconds")
    webhook: WebhookTarget | None = Field(None, description="who is told how the job goes, by signed requests")
    labels: Annotated[dict[LabelName, LabelValue], BeforeValidator(_check_count)] = Field(
        default_factory=dict, description=f"for listing: at most {MAX_LABELS}", examples=[{"project": "spring"}]
    )
    consent: Consent | None = Field(
        None,
        description="of the person whose face or voice is changed; kept with the job and in the record of its outputs",
        examples=[{"who": "A. Example", "reference": "contract 2026-117"}],
    )
    c2pa: bool = Field(False, description="sign a C2PA manifest into the results, whatever the installation's marking profile but off")

    storage: Literal["local", "s3", "r2", "gcs", "cf_images"] | None = Field(
        None, description="where the results lie, among the stores that this installation offers; its usual one when left out"
    )

    def kept(self) -> JsonObject:
        """Return what is kept with the job's spec, beside what its engine reads."""
        consent = {} if self.consent is None else {"consent": self.consent.model_dump(mode="json")}
        storage = {} if self.storage is None else {"storage": self.storage}
        return consent | ({"c2pa": True} if self.c2pa else {}) | storage
