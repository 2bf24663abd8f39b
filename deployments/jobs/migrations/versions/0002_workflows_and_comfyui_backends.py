"""Uploaded workflows and the ComfyUI servers; room for what a job requires of one."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Bring the schema to this revision."""
    op.create_table(
        "workflows",
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("graph", sa.JSON(), nullable=False),
        sa.Column("meta", sa.JSON(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "name", "version"),
    )
    op.create_table(
        "comfy_backends",
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("url", sa.String(length=1024), nullable=False),
        sa.Column("tags", sa.JSON(), nullable=False),
        sa.Column("weight", sa.Float(precision=53), nullable=False),
        sa.Column("in_flight", sa.Integer(), nullable=False),
        sa.Column("configured", sa.Boolean(), nullable=False),
        sa.Column("draining", sa.Boolean(), nullable=False),
        sa.Column("owner", sa.String(length=128), nullable=True),
        sa.Column("lease_until", sa.Float(precision=53), nullable=False),
        sa.PrimaryKeyConstraint("name"),
        sa.UniqueConstraint("url", name="uq_comfy_backends_url"),
    )
    _resize_requires(64, 255)


def downgrade() -> None:
    """Take the schema back."""
    _resize_requires(255, 64)
    op.drop_table("comfy_backends")
    op.drop_table("workflows")


def _resize_requires(before: int, after: int) -> None:
    if op.get_bind().dialect.name != "sqlite":  # SQLite keeps no lengths, and could only copy the whole table
        op.alter_column("jobs", "requires", existing_type=sa.String(length=before), type_=sa.String(length=after), existing_nullable=True)
