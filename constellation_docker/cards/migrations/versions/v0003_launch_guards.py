"""What keeps launches single: guards around them, and the answers of calls that came with an Idempotency-Key."""

from alembic import op

revision = "0003"
down_revision = "0002"


def _sqlite_moment(column: str) -> str:
    """A column that holds only moments."""
    test = f"{column} GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' AND julianday({column}) IS NOT NULL"
    return f"{column} TEXT NOT NULL CHECK ({test})"


SQLITE = (
    f"""
    CREATE TABLE launch_guards (
        subject TEXT NOT NULL PRIMARY KEY CHECK (subject <> ''),
        holder TEXT NOT NULL,
        {_sqlite_moment("until")}
    )
    """,
    f"""
    CREATE TABLE answered_calls (
        caller TEXT NOT NULL,
        key TEXT NOT NULL CHECK (key <> ''),
        fingerprint TEXT NOT NULL,
        status INTEGER,
        answer TEXT CHECK (answer IS NULL OR json_valid(answer)),
        {_sqlite_moment("created_at")},
        PRIMARY KEY (caller, key)
    )
    """,
    "CREATE INDEX answered_calls_age ON answered_calls (created_at)",
)

POSTGRESQL = (
    """
    CREATE TABLE launch_guards (
        subject text COLLATE "C" NOT NULL PRIMARY KEY CHECK (subject <> ''),
        holder text NOT NULL,
        until timestamptz NOT NULL
    )
    """,
    """
    CREATE TABLE answered_calls (
        caller text COLLATE "C" NOT NULL,
        key text COLLATE "C" NOT NULL CHECK (key <> ''),
        fingerprint text NOT NULL,
        status integer,
        answer json,
        created_at timestamptz NOT NULL,
        PRIMARY KEY (caller, key)
    )
    """,
    "CREATE INDEX answered_calls_age ON answered_calls (created_at)",
    # As for api_keys: nobody but the tables' owner reads or writes them, also where Supabase serves the schema.
    "ALTER TABLE launch_guards ENABLE ROW LEVEL SECURITY",
    "ALTER TABLE answered_calls ENABLE ROW LEVEL SECURITY",
)


def upgrade() -> None:
    connection = op.get_bind()
    for statement in SQLITE if connection.dialect.name == "sqlite" else POSTGRESQL:
        connection.exec_driver_sql(statement)


def downgrade() -> None:
    for table in ("answered_calls", "launch_guards"):
        op.get_bind().exec_driver_sql(f"DROP TABLE {table}")
