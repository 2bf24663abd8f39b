"""Objects that nothing names any more and that are to be deleted."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table("left_over_objects", sa.Column("key", sa.String(1024), primary_key=True))


def downgrade() -> None:
    """Take the schema back."""
    op.drop_table("left_over_objects")
