"""Where the replicas of each pool run and how many: the ``args:`` of the application in ``serve_config.yaml``, and no other setting."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from deployments.jobs.spec import POOLS


class PoolOptions(BaseModel):
    """Where the replicas of a pool run and how their number follows the queue. Written under ``args.pools.<name>``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    min_replicas: int = Field(1, ge=0, description="replicas kept when there is no work; 0 frees the GPU and pays the start again")
    initial_replicas: int | None = Field(None, ge=0, description="replicas at deploy; default: min_replicas")
    max_replicas: int = Field(1, ge=1, description="replicas at most")
    num_gpus: float = Field(0.25, gt=0, description="share of a GPU for one replica, in the gpu profile only; above 1 a whole number")
    num_cpus: float = Field(0.0, ge=0, description="cores that Ray books for one replica; 0, because thread counts are set explicitly")
    slots: int = Field(1, ge=1, description="jobs that one replica runs at once, sharing its loaded models")
    target_wait_s: float | None = Field(None, gt=0, description="scale so that queued work waits no longer; default: one job a slot")
    upscale_delay_s: float = Field(1.0, ge=0, description="how long the wish for more replicas must last")
    downscale_delay_s: float = Field(60.0, ge=0, description="how long the wish for fewer replicas must last")
    downscale_to_zero_delay_s: float = Field(300.0, ge=0, description="how long a pool must be idle before its last replica goes")
    graceful_shutdown_timeout_s: float = Field(600.0, gt=0, description="how long a replica that drains may finish its jobs")

    @model_validator(mode="after")
    def _bounds_in_order(self) -> PoolOptions:
        initial = self.min_replicas if self.initial_replicas is None else self.initial_replicas
        if not self.min_replicas <= initial <= self.max_replicas:
            raise ValueError("a pool needs min_replicas <= initial_replicas <= max_replicas")
        return self

    @field_validator("num_gpus")
    @classmethod
    def _whole_above_one(cls, value: float) -> float:
        if value > 1 and value != int(value):
            raise ValueError("Ray gives shares of one GPU or whole GPUs: num_gpus above 1 must be a whole number")
        return value


class AppArgs(BaseModel):
    """The ``args:`` of the application in ``serve_config.yaml``: placement, nothing else."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: Literal["auto", "cpu", "gpu"] = Field("auto", description="auto: gpu where the cluster has one; gpu without one is an error")
    pools: dict[str, PoolOptions] = Field(
        default_factory=lambda: {name: PoolOptions() for name in sorted(POOLS)},
        description="options by pool; a pool that is left out does not run",
    )

    @field_validator("pools")
    @classmethod
    def _pools_exist(cls, value: dict[str, PoolOptions]) -> dict[str, PoolOptions]:
        unknown = sorted(value.keys() - POOLS)
        if unknown:
            raise ValueError(f"no such pool: {', '.join(unknown)}; there is {', '.join(sorted(POOLS))}")
        return value
