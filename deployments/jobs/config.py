"""Settings of the job system. Apart from what they configure, so that reading them loads neither SQL nor Ray."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from deployments.jobs.keys import DEFAULT_KEY_TEMPLATE, check_key_template


class StoreConfig(BaseModel):
    """How the job store keeps and hands out jobs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    database_url: str = Field(
        description="SQLAlchemy URL: sqlite:///<absolute path> or postgresql+psycopg://user@host/name; libpq reads the password itself "
        "(PGPASSWORD or ~/.pgpass), because what is bound to a deployment is stored in the cluster's metadata"
    )
    node_label: dict[str, str] | None = Field(
        None, description='labels of the Ray node that has the disk of the database, as JSON: {"disk": "jobs"}; default: the head node'
    )
    lease_s: float = Field(15.0, gt=0, description="a worker silent for so long is taken for dead; three missed heartbeats of 5 s")
    stall_s: float = Field(300.0, gt=0, description="a job that makes no progress for so long fails, though its worker lives")
    retry_backoff_s: float = Field(2.0, ge=0, description="wait before the first retry of a failed attempt; doubles, up to a minute")
    max_queued: int = Field(10_000, gt=0, description="waiting jobs that a pool admits; one more is answered 429")
    sessions: int = Field(
        32, gt=0, description="drawing sessions that are admitted at once; each more makes all of them slower. One more is told its place"
    )
    janitor_period_s: float = Field(0.5, gt=0, description="how often leases and time-outs are looked at")
    webhook_progress_s: float = Field(5.0, gt=0, description="shortest time between two job.progress webhooks of a job")
    webhook_keep_s: float = Field(7 * 86400.0, gt=0, description="ended webhook deliveries stay listed for so long")
    webhooks_kept: int = Field(50_000, gt=0, description="newest ended webhook deliveries that stay listed")
    events_kept: int = Field(20_000, gt=0, description="newest events in memory; a reader further behind reads the snapshots again")

    @field_validator("database_url")
    @classmethod
    def _without_password(cls, value: str) -> str:
        credentials = value.split("@", maxsplit=1)[0].partition("://")[2] if "@" in value else ""
        if ":" in credentials or "password=" in value:
            raise ValueError("leave the password out of the database URL and set PGPASSWORD, or write it to ~/.pgpass")
        return value


class WebhookConfig(BaseModel):
    """How webhooks are signed and delivered."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    secrets: dict[str, tuple[str, ...]] = Field(
        {},
        description="names of signing secrets, each with the environment variables that hold it (whsec_ and base64), as JSON: "
        '{"default": ["WEBHOOK_SECRET"]}. Several variables: signed with each, for a rotation. Without any, webhooks are refused',
    )
    parallel: int = Field(32, gt=0, description="deliveries under way at once")
    timeout_s: float = Field(15.0, gt=0, description="a receiver has so long to answer")
    lease_s: float = Field(60.0, gt=0, description="a deliverer silent for so long is taken for dead; above timeout_s")
    first_retry_s: float = Field(5.0, gt=0, description="wait before the second try; doubles")
    max_retry_s: float = Field(3600.0, gt=0, description="longest wait between two tries")
    give_up_s: float = Field(24 * 3600.0, gt=0, description="after so long since the first try a delivery is dead")

    @model_validator(mode="after")
    def _lease_outlives_a_try(self) -> WebhookConfig:
        if self.lease_s <= self.timeout_s:
            raise ValueError("webhooks: lease_s must be above timeout_s, or a slow receiver is told twice")
        return self

    @field_validator("secrets")
    @classmethod
    def _each_has_a_variable(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        if not all(value.values()):
            raise ValueError("webhooks: every secret needs at least one environment variable")
        return value


class RunnerConfig(BaseModel):
    """How an attempt keeps in touch with the store."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    heartbeat_s: float = Field(5.0, gt=0, description="longest silence of a worker; a third of the store's lease")
    progress_s: float = Field(0.25, gt=0, description="shortest time between two reports of progress: they cost the store most")
    store_retry_s: float = Field(1.0, gt=0, description="pause before an unanswered ending is sent again")
    fetches: int = Field(
        10, ge=1, le=64, description="inputs of one job that are downloaded at once: more would not be faster, and cost sockets"
    )
    uploads: int = Field(4, ge=1, le=32, description="results of one job that are stored at once")
    key_template: str = Field(
        DEFAULT_KEY_TEMPLATE,
        description="key of a result in the object store, of {tenant}, {kind}, {date} of the submit, {job_id}, {attempt}, {name}, {ext}",
    )

    @field_validator("key_template")
    @classmethod
    def _names_each_result_once(cls, value: str) -> str:
        check_key_template(value)
        return value


class WorkerConfig(BaseModel):
    """How a replica takes work."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    slots: int = Field(1, ge=1, description="jobs that one replica computes at once")
    uploads: int = Field(4, ge=0, description="finished jobs that may still upload while the slots compute the next ones; bounds the disk")
    claim_wait_s: float = Field(10.0, gt=0, description="long poll of an idle slot: one call to the store per slot and period")
    store_retry_s: float = Field(1.0, gt=0, description="pause of an idle slot while the store is away")
    stuck_s: float = Field(60.0, gt=0, description="a job told to stop whose engine has not come back by then makes the replica unhealthy")
    drain_s: float = Field(
        570.0, gt=0, description="running jobs get so long to end when the replica is stopped; then they go back to the queue"
    )
