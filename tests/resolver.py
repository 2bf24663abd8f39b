"""Name lookups of the tests: no test name ever leads to a real address."""

import socket
from dataclasses import dataclass, field

from aiohttp.abc import AbstractResolver


@dataclass
class FakeResolver(AbstractResolver):
    answers: dict[str, list[list[str]]]  # name -> what each next lookup answers; the last answer stays
    asked: list[str] = field(default_factory=list)

    async def resolve(self, host, port=0, family=socket.AF_INET):
        host = host.lower()
        self.asked.append(host)
        if host not in self.answers:
            raise OSError(None, "no such name")
        nth = min(self.asked.count(host), len(self.answers[host])) - 1
        return [
            {"hostname": host, "host": ip, "port": port, "family": socket.AF_INET6 if ":" in ip else socket.AF_INET, "proto": 0, "flags": 0}
            for ip in self.answers[host][nth]
        ]

    async def close(self):
        pass
