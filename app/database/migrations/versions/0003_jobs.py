"""Jobs: their texts, what of them is with workers, and whom to tell when they end."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "job",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("uuid", sa.String(36), nullable=False, unique=True),
        sa.Column("principal", sa.String(100), nullable=False),
        sa.Column("caller", sa.String(100), nullable=False),
        sa.Column("idempotency_key", sa.String(255)),
        sa.Column("input_hash", sa.String(64), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False, server_default="0"),
        sa.Column("source", sa.String(100)),
        sa.Column("target", sa.String(100), nullable=False),
        sa.Column("wanted", sa.String(100)),
        sa.Column("model", sa.Text),
        sa.Column("version", sa.Text),
        sa.Column("assume", sa.String(100)),
        sa.Column("lines", sa.String(10), nullable=False),
        sa.Column("priority", sa.String(16), nullable=False),
        sa.Column("callback_url", sa.Text),
        sa.Column("created", sa.Float, nullable=False),
        sa.Column("started", sa.Float),
        sa.Column("finished", sa.Float),
        sa.Column("deadline", sa.Float, nullable=False),
        sa.Column("retention", sa.Float, nullable=False),
        sa.Column("expires", sa.Float, index=True),
        sa.Column("fed", sa.Float, nullable=False, server_default="0"),
        sa.Column("not_before", sa.Float, nullable=False, server_default="0"),
        sa.Column("pauses", sa.SmallInteger, nullable=False, server_default="0"),
        sa.Column("total", sa.Integer, nullable=False, server_default="0"),
        sa.Column("waiting", sa.Integer, nullable=False, server_default="0"),
        sa.Column("translated", sa.Integer, nullable=False, server_default="0"),
        sa.Column("failed", sa.Integer, nullable=False, server_default="0"),
        sa.Column("characters", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("translated_characters", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("charged", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("charged_day", sa.Integer, nullable=False),
        sa.Column("error_code", sa.String(32)),
        sa.Column("error_message", sa.Text),
        sa.UniqueConstraint("principal", "idempotency_key"),
        sa.Index("ix_job_principal", "principal", "created"),
        sa.Index("ix_job_status", "status", "fed"),
    )
    op.create_table(
        "job_segment",
        sa.Column("job_id", sa.Integer, sa.ForeignKey("job.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("state", sa.SmallInteger, nullable=False),
        sa.Column("leg", sa.SmallInteger, nullable=False, server_default="0"),
        sa.Column("attempts", sa.SmallInteger, nullable=False, server_default="0"),
        sa.Column("not_before", sa.Float, nullable=False, server_default="0"),
        sa.Column("chunk_id", sa.String(64), index=True),
        sa.Column("source", sa.String(100)),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("origin", sa.Text, nullable=False),
        sa.Column("result", sa.Text),
    )
    waiting = sa.text("state = 0")
    op.create_index(
        "ix_job_segment_waiting",
        "job_segment",
        ["job_id", "position"],
        sqlite_where=waiting,
        postgresql_where=waiting,
    )
    op.create_table(
        "job_chunk",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("job_id", sa.Integer, sa.ForeignKey("job.id", ondelete="CASCADE"), nullable=False, index=True),
        sa.Column("caller", sa.String(100), nullable=False, index=True),
        sa.Column("leg", sa.SmallInteger, nullable=False),
        sa.Column("lease", sa.Float, nullable=False, index=True),
    )
    op.create_table(
        "job_callback",
        sa.Column("job_id", sa.Integer, sa.ForeignKey("job.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("next_attempt", sa.Float, index=True),
        sa.Column("delivered", sa.Float),
        sa.Column("error", sa.Text),
    )


def downgrade() -> None:
    op.drop_table("job_callback")
    op.drop_table("job_chunk")
    op.drop_table("job_segment")
    op.drop_table("job")
