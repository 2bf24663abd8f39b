"""Files are found by their names, as clients of older services know them."""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_index("ix_files_name", "files", ["tenant", "name", "created_at"])


def downgrade() -> None:
    """Take the schema back."""
    op.drop_index("ix_files_name", "files")
