"""Which engine has the face speak: decided when a job is accepted, so that the job says it and waits where that engine runs."""

from __future__ import annotations

from collections.abc import Sequence

from deployments.jobs.errors import InvalidInput
from deployments.jobs.intake import MediaIntake
from deployments.jobs.ports import Plan
from deployments.jobs.spec import DUIX_POOL, Face2FaceOptions, Face2FaceSpec, JobSpec

# By engine, the options that it cannot follow. A Duix service plays every clip to and fro, at its own rate and size, and finds the face.
DEAF_TO = {
    "mesh": frozenset({"enhance"}),
    "wav2lip": frozenset({"enhance", "analysis"}),
    "duix": frozenset({"analysis", "face", "fps", "loop", "resolution"}),
}


class Face2FacePlanner:
    """Implements :class:`deployments.jobs.ports.Planner` for the kind ``face2face``."""

    def __init__(self, intake: MediaIntake, installed: Sequence[str], auto: Sequence[str]) -> None:
        """Take what is here.

        Args:
            intake: brings media in.
            installed: engines that run here.
            auto: engines that ``auto`` may choose, best first; those that are not installed are passed over.
        """
        self._intake = intake
        self._installed = tuple(installed)
        self._auto = tuple(engine for engine in auto if engine in self._installed)

    async def plan(self, tenant: str, spec: JobSpec) -> Plan:
        """See the port.

        Raises:
            InvalidInput: the engine is not installed, or cannot follow an option.
        """
        assert isinstance(spec, Face2FaceSpec), "planners are registered by kind"
        engine = self._engine(spec)
        stored = await self._intake.stored_spec(tenant, spec)
        return Plan({**stored, "engine": engine}, requires=engine, pool=DUIX_POOL if engine == "duix" else None)

    def _engine(self, spec: Face2FaceSpec) -> str:
        wishes = _wishes(spec.options)
        if spec.engine == "auto":
            able = (engine for engine in self._auto if not wishes & DEAF_TO[engine])
            chosen = next(able, None)
            if chosen is None:
                raise InvalidInput(f"no engine here can follow all of {_named(wishes)}: there is {', '.join(self._auto) or 'none'}")
            return chosen
        if spec.engine not in self._installed:
            raise InvalidInput(f"engine {spec.engine} is not installed here: there is {', '.join(self._installed)}")
        deaf = wishes & DEAF_TO[spec.engine]
        if deaf:
            raise InvalidInput(f"engine {spec.engine} cannot follow {_named(deaf)}: leave it out, or choose another engine")
        return spec.engine


def _wishes(options: Face2FaceOptions) -> frozenset[str]:
    """Return the options that ask for something: what is written as it is by default asks for nothing."""
    plain = Face2FaceOptions()
    return frozenset(name for name in Face2FaceOptions.model_fields if getattr(options, name) != getattr(plain, name))


def _named(names: frozenset[str]) -> str:
    return ", ".join(f"options.{name}" for name in sorted(names))
