"""Where a job's results lie in the object store."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import PurePosixPath
from string import Formatter

from deployments.jobs.model import Job

DEFAULT_KEY_TEMPLATE = "artifacts/{tenant}/{job_id}/{attempt}/{name}.{ext}"
FIELDS = frozenset({"tenant", "kind", "date", "job_id", "attempt", "name", "ext"})
# The attempt is one of them: two attempts of a job never write the same object, and only `finish` publishes one of them.
NEEDED = frozenset({"job_id", "attempt", "name", "ext"})
RESERVED = frozenset({"uploads", "incoming", "markers", "parts"})  # folders that hold something else
ROUTE = "@"  # begins the key of an object in a store that a job has chosen: @name/…
_PLAIN = re.compile(r"([A-Za-z0-9_=+@][A-Za-z0-9._=+@-]*/)*[A-Za-z0-9_=+@][A-Za-z0-9._=+@-]*")


def check_key_template(template: str) -> None:
    """Let a template pass by which every result of every attempt has a key of its own.

    Raises:
        ValueError: it does not; the text says why.
    """
    try:
        fields = [name for _, name, form, conversion in Formatter().parse(template) if name is not None or form or conversion]
    except ValueError as error:
        raise ValueError(f"the key template is malformed: {error}") from None
    if unknown := {str(name) for name in fields} - FIELDS:
        raise ValueError(f"the key template has {', '.join(sorted(unknown))}: there are {', '.join(sorted(FIELDS))}")
    if missing := NEEDED - set(fields):
        raise ValueError(f"the key template lacks {', '.join(sorted(missing))}: without it results would overwrite each other")
    sample = template.format(**dict.fromkeys(FIELDS, "x"))
    if _PLAIN.fullmatch(sample) is None or sample.partition("/")[0] in RESERVED or sample.startswith(ROUTE):
        raise ValueError(
            f"the key template has letters, digits and ._=+@- in its folders, and does not begin with {', '.join(sorted(RESERVED))}"
        )


def key_of(template: str, job: Job, name: str) -> str:
    """Return the key of a result.

    Args:
        template: that :func:`check_key_template` has let pass.
        job: whose attempt made it.
        name: of the file, with its extension.
    """
    path = PurePosixPath(name)
    date = datetime.fromtimestamp(job.created_at, UTC).date().isoformat()
    chosen = job.spec.get("storage")
    key = (f"{ROUTE}{chosen}/" if chosen else "") + template.format(
        tenant=job.tenant, kind=job.kind, date=date, job_id=job.id, attempt=job.attempt, name=path.stem, ext=path.suffix.removeprefix(".")
    )
    return key.rstrip(".")
