"""Jobs of sessions: numbered under their key, one of them waiting at most."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

OF_SESSIONS = sa.text("coalesce_key IS NOT NULL")
WAITING = sa.text("coalesce_key IS NOT NULL AND status = 'queued'")


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.add_column("jobs", sa.Column("coalesce_seq", sa.BigInteger(), nullable=True))
    numbered, ended, key = ["tenant", "coalesce_key", "coalesce_seq"], ["finished_at"], ["tenant", "coalesce_key"]
    op.create_index("ix_jobs_session", "jobs", numbered, sqlite_where=OF_SESSIONS, postgresql_where=OF_SESSIONS)
    op.create_index("ix_jobs_session_ended", "jobs", ended, sqlite_where=OF_SESSIONS, postgresql_where=OF_SESSIONS)
    op.create_index("uq_jobs_session_waiting", "jobs", key, unique=True, sqlite_where=WAITING, postgresql_where=WAITING)


def downgrade() -> None:
    """Take the schema back."""
    for name in ("uq_jobs_session_waiting", "ix_jobs_session_ended", "ix_jobs_session"):
        op.drop_index(name, "jobs")
    op.drop_column("jobs", "coalesce_seq")
