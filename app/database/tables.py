"""The tables, as the migrations leave them. Times are in Unix seconds, days are counted from 1970 in UTC."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
    literal_column,
)

metadata = MetaData()

api_key = Table(
    "api_key",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(100), nullable=False, unique=True),
    Column("hash", String(64), nullable=False, unique=True),
    Column("previous_hash", String(64), unique=True),
    Column("previous_until", Float),
    Column("scopes", String(100), nullable=False),
    Column("requests_per_minute", Integer),
    Column("characters_per_day", BigInteger),
    Column("created", Float, nullable=False),
    Column("revoked", Float),
)

usage = Table(
    "usage",
    metadata,
    Column("key_id", ForeignKey("api_key.id"), primary_key=True),
    Column("next_request", Float, nullable=False),
    Column("day", Integer, nullable=False),
    Column("characters", BigInteger, nullable=False),
)

idempotent_request = Table(
    "idempotent_request",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("principal", String(100), nullable=False),
    Column("idempotency_key", String(255), nullable=False),
    Column("input_hash", String(64), nullable=False),
    Column("request_id", String(36), nullable=False),
    Column("deadline", Float, nullable=False),
    Column("created", Float, nullable=False, index=True),
    Column("charged", BigInteger, nullable=False),
    Column("charged_day", Integer, nullable=False),
    Column("answer", Text),
    Column("outstanding", BigInteger, nullable=False, server_default="0"),
    Column("delivered", Text),
    UniqueConstraint("principal", "idempotency_key"),
)

# Every request looks for abandoned ones. Thanks to this index it need not go through all the answers of a day.
Index(
    "ix_idempotent_request_unanswered",
    idempotent_request.c.deadline,
    sqlite_where=idempotent_request.c.answer.is_(None),
    postgresql_where=idempotent_request.c.answer.is_(None),
)

job = Table(
    "job",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uuid", String(36), nullable=False, unique=True),
    Column("principal", String(100), nullable=False),  # whose it is: a key's id, or empty for this machine
    Column("caller", String(100), nullable=False),  # whose share of the workers it takes
    Column("idempotency_key", String(255)),
    Column("input_hash", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("revision", Integer, nullable=False, server_default="0"),  # grows with every change
    Column("source", String(100)),
    Column("target", String(100), nullable=False),
    Column("wanted", String(100)),  # the model that the caller named
    Column("model", Text),
    Column("version", Text),
    Column("assume", String(100)),
    Column("lines", String(10), nullable=False),
    Column("priority", String(16), nullable=False),
    Column("callback_url", Text),
    Column("created", Float, nullable=False),
    Column("started", Float),
    Column("finished", Float),
    Column("deadline", Float, nullable=False),
    Column("retention", Float, nullable=False),  # seconds from its end until it expires
    Column("expires", Float, index=True),
    Column("fed", Float, nullable=False, server_default="0"),  # when texts of it were last sent to workers
    Column("not_before", Float, nullable=False, server_default="0"),  # until when no texts of it are sent
    Column("pauses", SmallInteger, nullable=False, server_default="0"),  # in a row, because its model was not there
    Column("total", Integer, nullable=False, server_default="0"),
    Column("waiting", Integer, nullable=False, server_default="0"),
    Column("translated", Integer, nullable=False, server_default="0"),
    Column("failed", Integer, nullable=False, server_default="0"),
    Column("characters", BigInteger, nullable=False, server_default="0"),
    Column("translated_characters", BigInteger, nullable=False, server_default="0"),
    Column("charged", BigInteger, nullable=False, server_default="0"),  # characters on charged_day
    Column("charged_day", Integer, nullable=False),
    Column("error_code", String(32)),
    Column("error_message", Text),
    UniqueConstraint("principal", "idempotency_key"),
    Index("ix_job_principal", "principal", "created"),
    Index("ix_job_status", "status", "fed"),
)

job_segment = Table(
    "job_segment",
    metadata,
    Column("job_id", ForeignKey("job.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("state", SmallInteger, nullable=False),
    Column("leg", SmallInteger, nullable=False, server_default="0"),  # legs that have been translated
    Column("attempts", SmallInteger, nullable=False, server_default="0"),
    Column("not_before", Float, nullable=False, server_default="0"),  # until when it is not tried again
    Column("chunk_id", String(64), index=True),
    Column("source", String(100)),
    Column("text", Text, nullable=False),
    Column("origin", Text, nullable=False),
    Column("result", Text),
)

# The next texts of a job with a million are found without reading those that are done.
Index(
    "ix_job_segment_waiting",
    job_segment.c.job_id,
    job_segment.c.position,
    sqlite_where=job_segment.c.state == literal_column("0"),
    postgresql_where=job_segment.c.state == literal_column("0"),
)

job_chunk = Table(
    "job_chunk",
    metadata,
    Column("id", String(64), primary_key=True),  # the task id
    Column("job_id", ForeignKey("job.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("caller", String(100), nullable=False, index=True),
    Column("leg", SmallInteger, nullable=False),
    Column("lease", Float, nullable=False, index=True),
)

job_callback = Table(
    "job_callback",
    metadata,
    Column("job_id", ForeignKey("job.id", ondelete="CASCADE"), primary_key=True),
    Column("attempts", Integer, nullable=False, server_default="0"),
    Column("next_attempt", Float, index=True),  # NULL if there is none
    Column("delivered", Float),
    Column("error", Text),
)
