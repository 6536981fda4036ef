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
    String,
    Table,
    Text,
    UniqueConstraint,
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
