"""Databases on the loop: redis-py with a redis-server, asyncpg with a PostgreSQL, aiosqlite.

The servers are the tests' own: on Unix sockets in temporary directories (Redis over TLS on a port
that was free). Where one is not installed, its tests are skipped.
"""

from __future__ import annotations

import asyncio
import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import aiosqlite
import asyncpg
import pytest
import redis.asyncio
import trustme
from redis.exceptions import ConnectionError, WatchError
from support import TIMEOUT, Loop, ended, pattern, printed, runs_on

BIG = pattern(3_000_000)
PATIENT = {"socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT}  # redis-py 8 has 5 s


@contextmanager
def server(*command: str | Path, ready: str, stop: signal.Signals, **options: Any) -> Iterator[Any]:
    """Runs a server until it is left, from when it has printed that it is ready."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    try:
        printed(process, ready)
        yield process
    finally:
        process.send_signal(stop)  # nothing happens if it has ended
        ended(process, status=None)


# --- Redis ---------------------------------------------------------------------------------------


def redis_server(directory: Path, *options: str | Path) -> Any:
    program = shutil.which("redis-server")
    if not program:
        pytest.skip("no redis-server here: apt-get install redis-server")
    words = [program, "--dir", directory, "--save", "", "--port", "0", *options]
    return server(*words, ready="eady to accept connections", stop=signal.SIGTERM)


@pytest.fixture
def redis_socket(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "redis.sock"
    with redis_server(tmp_path, "--unixsocket", path):
        yield str(path)


async def test_redis(loop: Loop, loop_module: ModuleType, redis_socket: str) -> None:
    runs_on(loop_module)
    async with redis.asyncio.Redis(**PATIENT, unix_socket_path=redis_socket) as client:
        assert await client.set("big", BIG)
        assert await client.get("big") == BIG
        assert await client.get("nothing") is None
        with pytest.raises(redis.exceptions.ResponseError, match="wrong kind of value"):
            await client.lpush("big", "item")


async def test_redis_connection_pool(
    loop: Loop, loop_module: ModuleType, redis_socket: str
) -> None:
    runs_on(loop_module)
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        f"unix://{redis_socket}", max_connections=10, timeout=TIMEOUT, **PATIENT
    )
    async with redis.asyncio.Redis.from_pool(pool) as client:
        numbers = await asyncio.gather(*(client.incr("counter") for _ in range(300)))
        assert sorted(numbers) == list(range(1, 301))
        assert 1 < len(await client.client_list()) <= 10


async def test_redis_pipelines_and_transactions(
    loop: Loop, loop_module: ModuleType, redis_socket: str
) -> None:
    runs_on(loop_module)
    async with redis.asyncio.Redis(
        **PATIENT, unix_socket_path=redis_socket, decode_responses=True
    ) as client:
        async with client.pipeline(transaction=False) as pipeline:
            for number in range(2000):
                pipeline.set(f"key{number}", "x" * number)
                pipeline.strlen(f"key{number}")
            assert await pipeline.execute() == [x for number in range(2000) for x in (True, number)]
        async with client.pipeline(transaction=True) as pipeline:
            await pipeline.watch("balance")
            await client.set("balance", 10)  # by another connection
            pipeline.multi()
            pipeline.set("balance", 0)
            with pytest.raises(WatchError):
                await pipeline.execute()
        assert await client.get("balance") == "10"


async def test_redis_publish_and_subscribe(
    loop: Loop, loop_module: ModuleType, redis_socket: str
) -> None:
    runs_on(loop_module)
    async with redis.asyncio.Redis(
        **PATIENT, unix_socket_path=redis_socket, decode_responses=True
    ) as client:
        async with client.pubsub() as subscriber:
            await subscriber.subscribe("news")
            await subscriber.psubscribe("log.*")
            kinds = [(await subscriber.get_message(timeout=TIMEOUT))["type"] for _ in range(2)]
            assert kinds == ["subscribe", "psubscribe"]

            async def publish() -> None:
                for number in range(500):
                    assert await client.publish("news", number) == 1
                assert await client.publish("log.end", "that is all") == 1

            publisher = asyncio.create_task(publish())
            got = []
            async for message in subscriber.listen():
                got.append(message["data"])
                if message["type"] == "pmessage":
                    break
            await publisher
            assert got == [*map(str, range(500)), "that is all"]


async def test_redis_blocking_reads_end_early(
    loop: Loop, loop_module: ModuleType, redis_socket: str
) -> None:
    runs_on(loop_module)
    async with redis.asyncio.Redis(
        **PATIENT, unix_socket_path=redis_socket, decode_responses=True
    ) as client:

        async def readers(count: int) -> None:
            while (await client.info("clients"))["blocked_clients"] != count:
                await asyncio.sleep(0)

        woken, cancelled = (
            asyncio.create_task(client.blpop(key)) for key in ("woken", "cancelled")
        )
        await readers(2)
        await client.rpush("woken", "item")
        assert await woken == ("woken", "item")
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await readers(0)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.blpop("nothing"), 0.01)
        assert await client.blpop("nothing", timeout=0.01) is None
        assert await client.ping()


async def test_redis_comes_back(loop: Loop, loop_module: ModuleType, tmp_path: Path) -> None:
    runs_on(loop_module)
    path = tmp_path / "redis.sock"
    client = redis.asyncio.Redis(**PATIENT, unix_socket_path=str(path), retry=None)
    with redis_server(tmp_path, "--unixsocket", path) as process:
        assert await client.set("key", "value")
        reader = asyncio.create_task(client.blpop("nothing"))
        while (await client.info("clients"))["blocked_clients"] != 1:
            await asyncio.sleep(0)
        process.kill()
        with pytest.raises(ConnectionError):
            await reader
    with pytest.raises(ConnectionError):
        await client.get("key")
    with redis_server(tmp_path, "--unixsocket", path):
        assert await client.get("key") is None  # the new server knows nothing of it
        await client.aclose()


async def test_redis_over_tls(loop: Loop, loop_module: ModuleType, tmp_path: Path) -> None:
    runs_on(loop_module)
    authority, certificates, key = trustme.CA(), tmp_path / "ca.pem", tmp_path / "server.pem"
    authority.cert_pem.write_to_path(certificates)
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(key)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    options = ["--bind", "127.0.0.1", "--tls-port", str(port), "--tls-auth-clients", "no"]
    options += ["--tls-ca-cert-file", certificates, "--tls-cert-file", key, "--tls-key-file", key]
    with redis_server(tmp_path, *options):
        options = {**PATIENT, "ssl": True, "ssl_ca_certs": str(certificates)}
        async with redis.asyncio.Redis(host="127.0.0.1", port=port, **options) as client:
            assert await client.set("big", BIG)
            assert await client.get("big") == BIG
        with pytest.raises(ConnectionError, match=r"(?i)certificate"):
            options = {**PATIENT, "ssl": True, "retry": None}
            async with redis.asyncio.Redis(host="127.0.0.1", port=port, **options) as client:
                await client.ping()


# --- PostgreSQL ----------------------------------------------------------------------------------


def postgres_program(name: str) -> str:
    """Debian has PostgreSQL's programs in a directory of their version, not in PATH."""
    programs = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"))
    program = shutil.which(name) or (programs[-1] if programs else None)
    if not program:
        pytest.skip(f"no {name} here: apt-get install postgresql")
    return os.path.realpath(program)


def unprivileged() -> dict[str, Any]:
    """Options of Popen: PostgreSQL refuses to run as root."""
    if os.getuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    """A server; gives the directory of its Unix socket."""
    initdb, postgres = postgres_program("initdb"), postgres_program("postgres")
    # Not pytest's temporary directory, which only the user who runs it may enter.
    with tempfile.TemporaryDirectory(prefix="casync-") as directory:
        options = {"cwd": directory, **unprivileged()}
        if "user" in options:
            os.chown(directory, options["user"], options["group"])
        data = Path(directory, "data")
        words = [initdb, "--pgdata", data, "--username=casync", "--auth=trust", "--no-sync"]
        words += ["--encoding=UTF8", "--locale=C"]
        subprocess.run(words, check=True, capture_output=True, **options)
        # Above the level "log" it prints next to nothing, so that the pipe cannot become full.
        settings = ["listen_addresses=", "fsync=off", "log_min_messages=log"]
        words = [
            postgres,
            "-D",
            data,
            "-k",
            directory,
            *(word for x in settings for word in ("-c", x)),
        ]
        with server(*words, ready="ready to accept connections", stop=signal.SIGINT, **options):
            yield directory


@asynccontextmanager
async def connected(postgres: str, **options: Any) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(host=postgres, user="casync", database="postgres", **options)
    try:
        yield connection
    finally:
        await connection.close()


async def test_postgres(loop: Loop, loop_module: ModuleType, postgres: str) -> None:
    runs_on(loop_module)
    async with connected(postgres) as connection:
        await connection.execute("create temporary table t (id integer primary key, data bytea)")
        await connection.executemany(
            "insert into t values ($1, $2)", [(n, b"x" * n) for n in range(1000)]
        )
        await connection.execute("insert into t values (-1, $1)", BIG)
        assert await connection.fetchval("select data from t where id = -1") == BIG
        statement = await connection.prepare("select length(data) from t where id = $1")
        assert [await statement.fetchval(number) for number in range(100)] == list(range(100))
        async with connection.transaction():
            rows = [
                row["id"]
                async for row in connection.cursor("select id from t order by id", prefetch=7)
            ]
        assert rows == list(range(-1, 1000))
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute("insert into t values (5, '')")
        with pytest.raises(asyncpg.PostgresSyntaxError):
            await connection.execute("no statement")
        assert await connection.fetchval("select 1") == 1


async def test_postgres_transactions(loop: Loop, loop_module: ModuleType, postgres: str) -> None:
    runs_on(loop_module)
    async with connected(postgres) as first, connected(postgres) as second:
        await first.execute(
            "drop table if exists accounts; create table accounts (balance integer)"
        )
        with pytest.raises(ZeroDivisionError):
            async with first.transaction():
                await first.execute("insert into accounts values (1)")
                raise ZeroDivisionError
        async with first.transaction():
            await first.execute("insert into accounts values (2)")
            with pytest.raises(asyncpg.DivisionByZeroError):
                async with first.transaction():  # a savepoint
                    await first.execute("insert into accounts values (1 / 0)")
            assert await second.fetch("select * from accounts") == []  # not committed yet
        assert [tuple(row) for row in await second.fetch("select * from accounts")] == [(2,)]

        # Each reads what the other writes: only one of them may commit.
        transactions = [each.transaction(isolation="serializable") for each in (first, second)]
        for each, transaction in zip((first, second), transactions, strict=True):
            await transaction.start()
            total = await each.fetchval("select sum(balance) from accounts")
            await each.execute("insert into accounts values ($1)", total)
        await transactions[0].commit()
        with pytest.raises(asyncpg.SerializationError):
            await transactions[1].commit()


async def test_postgres_pool(loop: Loop, loop_module: ModuleType, postgres: str) -> None:
    runs_on(loop_module)
    options = {"host": postgres, "user": "casync", "database": "postgres"}
    async with asyncpg.create_pool(**options, min_size=1, max_size=8) as pool:
        query = "select $1::integer, pg_backend_pid()"
        rows = await asyncio.gather(*(pool.fetchrow(query, number) for number in range(300)))
        assert [row[0] for row in rows] == list(range(300))
        assert 1 < len({row[1] for row in rows}) <= 8


async def test_postgres_listen_and_notify(
    loop: Loop, loop_module: ModuleType, postgres: str
) -> None:
    runs_on(loop_module)
    got: asyncio.Queue[tuple[int, str, str]] = asyncio.Queue()
    async with connected(postgres) as listener, connected(postgres) as notifier:
        await listener.add_listener("news", lambda _, *notification: got.put_nowait(notification))
        for number in range(200):
            await notifier.execute("select pg_notify('news', $1)", str(number))
        pid = notifier.get_server_pid()
        assert [await got.get() for _ in range(200)] == [(pid, "news", str(n)) for n in range(200)]


async def test_postgres_copy(loop: Loop, loop_module: ModuleType, postgres: str) -> None:
    runs_on(loop_module)

    async def lines() -> AsyncIterator[bytes]:
        for number in range(20_000, 21_000):
            yield b"%d,%s\n" % (number, b"y" * 100)

    async with connected(postgres) as connection:
        await connection.execute("create temporary table t (id integer, text text)")
        records = [(number, "x" * 100) for number in range(20_000)]
        assert await connection.copy_records_to_table("t", records=records) == "COPY 20000"
        assert await connection.copy_to_table("t", source=lines(), format="csv") == "COPY 1000"
        got = bytearray()

        async def take(data: bytes) -> None:
            await asyncio.sleep(0)  # slower than the server
            got.extend(data)

        await connection.copy_from_query("select id from t order by id", output=take)
        assert got.split() == [b"%d" % number for number in range(21_000)]


async def activity(observer: asyncpg.Connection, pid: int, column: str, wanted: str) -> None:
    """Waits until the server says so of the connection that this process of its serves."""
    query = f"select {column} from pg_stat_activity where pid = $1"
    while await observer.fetchval(query, pid) != wanted:
        await asyncio.sleep(0)


async def test_postgres_queries_are_cancelled(
    loop: Loop, loop_module: ModuleType, postgres: str
) -> None:
    runs_on(loop_module)
    async with connected(postgres) as connection, connected(postgres) as observer:
        pid = connection.get_server_pid()
        query = asyncio.create_task(connection.fetch("select pg_sleep(3600)"))
        await activity(observer, pid, "wait_event", "PgSleep")
        query.cancel()
        with pytest.raises(asyncio.CancelledError):
            await query
        await activity(observer, pid, "state", "idle")  # the server was told
        with pytest.raises(asyncio.TimeoutError):
            await connection.fetch("select pg_sleep(3600)", timeout=0.01)
        assert await connection.fetchval("select 1") == 1


async def test_postgres_ends_a_connection(
    loop: Loop, loop_module: ModuleType, postgres: str
) -> None:
    runs_on(loop_module)
    options = {"host": postgres, "user": "casync", "database": "postgres"}
    async with (
        connected(postgres) as other,
        asyncpg.create_pool(**options, max_size=1, min_size=1) as pool,
    ):
        terminated = asyncio.Event()
        async with pool.acquire() as connection:
            connection.add_termination_listener(lambda _: terminated.set())
            query = asyncio.create_task(connection.fetch("select pg_sleep(3600)"))
            first = connection.get_server_pid()
            await activity(other, first, "wait_event", "PgSleep")
            assert await other.fetchval("select pg_terminate_backend($1)", first)
            with pytest.raises((asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError)):
                await query
            await terminated.wait()
        assert await pool.fetchval("select pg_backend_pid()") != first  # a new connection


# --- SQLite --------------------------------------------------------------------------------------


async def test_sqlite(loop: Loop, loop_module: ModuleType, tmp_path: Path) -> None:
    runs_on(loop_module)
    path = tmp_path / "sqlite.db"
    async with aiosqlite.connect(path) as first, aiosqlite.connect(path) as second:
        await first.execute("pragma journal_mode = wal")
        await first.execute("create table t (id integer primary key, text text)")
        await asyncio.gather(
            *(first.execute("insert into t values (?, 'x')", (n,)) for n in range(300))
        )
        async with second.execute("select count(*) from t") as cursor:
            assert await cursor.fetchone() == (0,)  # not committed yet
        await first.commit()
        async with second.execute("select id from t order by id") as cursor:
            assert [row async for row in cursor] == [(number,) for number in range(300)]
        await first.execute("delete from t")
        await first.rollback()
        assert list(await second.execute_fetchall("select count(*) from t")) == [(300,)]
        with pytest.raises(aiosqlite.IntegrityError):
            await first.execute("insert into t values (1, 'again')")


async def test_sqlite_is_interrupted(loop: Loop, loop_module: ModuleType) -> None:
    runs_on(loop_module)
    numbers = "with recursive n(x) as (select started() union all select x + 1 from n)"
    endless = f"{numbers} select count(*) from n"
    started = asyncio.Event()
    async with aiosqlite.connect(":memory:") as connection:
        await connection.create_function(
            "started", 0, lambda: loop.call_soon_threadsafe(started.set) and 0
        )
        query = asyncio.create_task(connection.execute_fetchall(endless))
        await started.wait()
        await connection.interrupt()
        with pytest.raises(aiosqlite.OperationalError, match="interrupted"):
            await query
        assert list(await connection.execute_fetchall("select 1")) == [(1,)]
