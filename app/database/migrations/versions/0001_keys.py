"""API keys, their usage, and the answers of requests with an idempotency key."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "api_key",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", sa.String(100), nullable=False, unique=True),
        sa.Column("hash", sa.String(64), nullable=False, unique=True),
        sa.Column("previous_hash", sa.String(64), unique=True),
        sa.Column("previous_until", sa.Float),
        sa.Column("scopes", sa.String(100), nullable=False),
        sa.Column("requests_per_minute", sa.Integer),
        sa.Column("characters_per_day", sa.BigInteger),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("revoked", sa.Float),
    )
    op.create_table(
        "usage",
        sa.Column("key_id", sa.Integer, sa.ForeignKey("api_key.id"), primary_key=True),
        sa.Column("next_request", sa.Float, nullable=False),
        sa.Column("day", sa.Integer, nullable=False),
        sa.Column("characters", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "idempotent_request",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("principal", sa.String(100), nullable=False),
        sa.Column("idempotency_key", sa.String(255), nullable=False),
        sa.Column("input_hash", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(36), nullable=False),
        sa.Column("deadline", sa.Float, nullable=False),
        sa.Column("created", sa.Float, nullable=False, index=True),
        sa.Column("charged", sa.BigInteger, nullable=False),
        sa.Column("charged_day", sa.Integer, nullable=False),
        sa.Column("answer", sa.Text),
        sa.UniqueConstraint("principal", "idempotency_key"),
    )
    unanswered = sa.text("answer IS NULL")
    op.create_index(
        "ix_idempotent_request_unanswered",
        "idempotent_request",
        ["deadline"],
        sqlite_where=unanswered,
        postgresql_where=unanswered,
    )


def downgrade() -> None:
    op.drop_table("idempotent_request")
    op.drop_table("usage")
    op.drop_table("api_key")
