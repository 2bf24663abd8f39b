"""The box that delivers webhooks. Any number of replicas may: the store's leases share the work out."""

from __future__ import annotations

import base64
import binascii
import os

from pydantic import BaseModel, ConfigDict

from deployments.handles import StoreHandle
from deployments.jobs.config import WebhookConfig
from deployments.jobs.deliverer import Deliverer
from deployments.jobs.ports import SystemClock
from deployments.storage.fetch import FetchConfig
from deployments.storage.webhook_sender import GuardedSender

PREFIX = "whsec_"
SECRET_BYTES = range(24, 65)  # as Standard Webhooks asks for


class WebhooksSetup(BaseModel):
    """What the box is bound with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    webhooks: WebhookConfig
    fetch: FetchConfig


class Webhooks:
    """Delivers what is in the store's outbox."""

    def __init__(self, setup: WebhooksSetup) -> None:
        """Read the secrets from this process' environment: what is bound to a deployment is stored in the cluster's metadata."""
        sender = GuardedSender(setup.fetch, setup.webhooks.timeout_s)
        self._deliverer = Deliverer(StoreHandle(), sender, read_secrets(setup.webhooks), setup.webhooks, SystemClock())
        self._deliverer.start()

    async def __del__(self) -> None:  # Serve awaits it when it stops the replica
        await self._deliverer.close()

    def check_health(self) -> None:
        """Let Serve replace a replica whose loop has ended.

        Raises:
            RuntimeError: it has.
        """
        if not self._deliverer.running:
            raise RuntimeError("the deliverer has stopped")


def read_secrets(config: WebhookConfig) -> dict[str, tuple[str, ...]]:
    """Read every signing secret.

    Raises:
        ValueError: a variable is not set, or holds no secret; its value is not shown.
    """
    return {name: tuple(_secret(variable) for variable in variables) for name, variables in config.secrets.items()}


def _secret(variable: str) -> str:
    value = os.environ.get(variable, "")  # noqa: TID251 -- whoever uses a secret reads it: what is bound to a box is stored
    try:
        length = len(base64.b64decode(value.removeprefix(PREFIX), validate=True))
    except (binascii.Error, ValueError):
        length = 0
    if not value.startswith(PREFIX) or length not in SECRET_BYTES:
        raise ValueError(f"{variable} must hold a webhook secret: whsec_ and the base64 of 24 to 64 random bytes")
    return value
