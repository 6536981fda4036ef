"""Answers some of whose texts failed for a reason that may pass: a repeat translates, and pays for, these alone."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("idempotent_request", sa.Column("outstanding", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("idempotent_request", sa.Column("delivered", sa.Text))


def downgrade() -> None:
    op.drop_column("idempotent_request", "delivered")
    op.drop_column("idempotent_request", "outstanding")
