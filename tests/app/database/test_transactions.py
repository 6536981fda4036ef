from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, func, insert, inspect, make_url, select, update
from sqlalchemy.exc import IntegrityError

from app import create_app
from app.database.tables import api_key, metadata, usage
from app.database.transactions import CONNECTIONS, Database
from app.settings import REPOSITORY, Settings
from app.translation.translator import EchoTranslator
from launch.postgresql import PrivatePostgreSQL
from tasks.contract.errors import Code, TolkError


def insert_key(connection: Connection, name: str = "ops") -> None:
    connection.execute(insert(api_key).values(name=name, hash=name, scopes="", created=0))


def count(database: Database) -> int | None:
    return database.run(lambda connection: connection.scalar(select(func.count()).select_from(api_key)))


def test_the_migrations_lead_to_the_tables_and_back(database: Database) -> None:
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    database.run(insert_key)
    database.downgrade("base")
    assert database.revision() is None
    assert set(inspect(database.engine).get_table_names()) == {"alembic_version"}
    database.upgrade()
    assert count(database) == 0


def test_two_that_migrate_at_once_wait_for_each_other(database: Database) -> None:
    database.downgrade("base")
    others = [Database(database.url) for _ in range(4)]
    with ThreadPoolExecutor() as pool:
        list(pool.map(Database.upgrade, others))
    assert count(database) == 0
    for each in others:
        each.close()


def test_a_transaction_is_kept_whole_or_not_at_all(database: Database) -> None:
    def fail(connection: Connection) -> None:
        insert_key(connection)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        database.run(fail)
    assert count(database) == 0
    database.run(insert_key)
    with pytest.raises(IntegrityError):
        database.run(insert_key)
    assert count(database) == 1


def test_many_at_once_lose_nothing(database: Database) -> None:
    def make(connection: Connection) -> None:
        insert_key(connection)
        connection.execute(
            insert(usage).values(key_id=select(api_key.c.id).scalar_subquery(), next_request=0, day=0, characters=0)
        )

    database.run(make)
    add = update(usage).values(characters=usage.c.characters + 1)
    with ThreadPoolExecutor(4 * CONNECTIONS) as pool:
        list(pool.map(lambda _: database.run(lambda connection: connection.execute(add)), range(200)))
    assert database.run(lambda connection: connection.scalar(select(usage.c.characters))) == 200


def test_what_was_given_up_is_not_written(database: Database, eventually: Callable[..., None]) -> None:
    go, ended = threading.Event(), threading.Event()

    def write(connection: Connection) -> None:
        go.wait(30)
        insert_key(connection)
        ended.set()

    with pytest.raises(TolkError) as refused:
        database.run(write, until=time.time() + 0.1)
    assert refused.value.code is Code.TIMEOUT
    go.set()
    assert ended.wait(30)
    eventually(lambda: not any(thread.name == "database" for thread in threading.enumerate()))
    assert count(database) == 0


def test_what_is_settled_goes_on_by_itself(database: Database, eventually: Callable[..., None]) -> None:
    go = threading.Event()

    def write(connection: Connection) -> None:
        go.wait(30)
        insert_key(connection)

    database.settle(write)
    go.set()
    eventually(lambda: count(database) == 1)


def test_a_postgresql_that_dies_and_one_that_hangs_hold_nobody_and_come_back(
    new_postgresql: Callable[[], PrivatePostgreSQL], eventually: Callable[..., None], paused: Callable[..., Any]
) -> None:
    with new_postgresql() as server:
        database = Database(make_url(server.url))
        with pytest.raises(TolkError, match="not up to date"):
            database.run(insert_key)
        database.upgrade()
        database.run(insert_key)
        server.kill()
        began = time.monotonic()
        with pytest.raises(TolkError, match="does not answer"):
            database.run(insert_key, until=time.time() + 1)
        assert time.monotonic() - began < 5
        server.start()
        assert count(database) == 1
        threads = threading.active_count()
        with paused(server.process):
            with pytest.raises(TolkError, match="deadline"):
                database.run(insert_key, until=time.time() + 0.2)
            assert threading.active_count() == threads + 1
        eventually(lambda: threading.active_count() == threads)
        assert count(database) == 1
        database.close()


@pytest.mark.parametrize("migrated", ["postgresql"], indirect=True)
def test_a_database_of_a_later_release_is_borne_with(database: Database) -> None:
    revision = database.revision()
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    later = Database(database.url)
    later.run(insert_key)
    later.close()
    with database.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{revision}'")


def test_the_commands_migrate_and_say_what_is_wrong(tmp_path: Path) -> None:
    settings = Settings(database=make_url(f"sqlite:///{tmp_path}/new/tolk.sqlite"))
    runner = create_app(settings, EchoTranslator()).test_cli_runner()
    assert runner.invoke(args=["database", "upgrade"]).output == "The database is at revision 0003.\n"
    assert runner.invoke(args=["database", "downgrade", "base", "--yes"]).output.endswith("at revision base.\n")
    refused = runner.invoke(args=["database", "downgrade", "base"], input="n\n")
    assert refused.exit_code == 1
    wrong = runner.invoke(args=["database", "upgrade", "nowhere"])
    assert (wrong.exit_code, wrong.output) == (1, "Error: Can't locate revision identified by 'nowhere'\n")


def test_a_command_ends_although_the_database_does_not_answer() -> None:
    with pytest.raises(subprocess.CalledProcessError) as ended:
        subprocess.run(
            [sys.executable, "-m", "flask", "--app", "app", "keys", "list"],
            cwd=REPOSITORY,
            env={"DATABASE_URL": "postgresql://tolk:secret@127.0.0.1:1/tolk", "TOLK_TRANSLATOR": "echo"},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
    assert (
        ended.value.stderr.splitlines()[-1] == "Error: The service's database does not answer. Try again in a moment."
    )
    assert "secret" not in ended.value.stderr
