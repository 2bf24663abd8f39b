"""What a client may do about webhooks: name a receiver, see what became of its deliveries, have one sent again."""

from __future__ import annotations

from collections.abc import Collection

from deployments.jobs.errors import DeliveryNotFound, WebhookRefused
from deployments.jobs.intake import CheckUrl
from deployments.jobs.options import UUID
from deployments.jobs.ports import WebhookOutbox
from deployments.jobs.webhook import Delivery, DeliveryPage, DeliveryQuery, WebhookTarget


class WebhookDesk:
    """The ingress' part about webhooks."""

    def __init__(self, outbox: WebhookOutbox, check_url: CheckUrl, secrets: Collection[str]) -> None:
        """Take the parts.

        Args:
            outbox: of deliveries.
            check_url: the guard's look at an address, without DNS.
            secrets: names of the configured ones.
        """
        self._outbox = outbox
        self._check_url = check_url
        self._secrets = frozenset(secrets)

    def check(self, target: WebhookTarget | None) -> None:
        """Refuse a receiver that could never be told, or only without a signature.

        Raises:
            WebhookRefused: there is no such secret.
            UrlNotAllowed: the guard refuses the address.
        """
        if target is None:
            return
        if target.secret not in self._secrets:
            raise WebhookRefused(f"there is no webhook secret named {target.secret} here: ATELIER_WEBHOOKS__SECRETS names them")
        self._check_url(target.url)

    async def list_deliveries(self, query: DeliveryQuery) -> DeliveryPage:
        """List deliveries, newest first.

        Raises:
            InvalidInput: a cursor that is none of ours.
        """
        return await self._outbox.list_deliveries(query)

    async def test(self, tenant: str, target: WebhookTarget) -> Delivery:
        """Send a signed test to a receiver, once; what became of it is in the list of deliveries.

        Raises:
            WebhookRefused: there is no such secret.
            UrlNotAllowed: the guard refuses the address.
        """
        self.check(target)
        return await self._outbox.add_test(tenant, target.url, target.secret)

    async def redeliver(self, tenant: str, delivery_id: str) -> Delivery:
        """Send an ended delivery again; one that is under way stays as it is.

        Raises:
            DeliveryNotFound: no such delivery for this tenant.
        """
        if not UUID.fullmatch(delivery_id):
            raise DeliveryNotFound(delivery_id[:100])
        return await self._outbox.redeliver(tenant, delivery_id)
