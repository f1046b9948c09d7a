"""The gateway's API keys. A key itself is in no table: only its SHA-256 digest is, and a key has 256 random bits."""

from alembic import op

revision = "0002"
down_revision = "0001"

_SQLITE_NOW = "(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')"


def _sqlite_moment(column: str) -> str:
    """A column that holds only moments, or nothing."""
    test = f"{column} GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' AND julianday({column}) IS NOT NULL"
    return f"{column} TEXT CHECK ({column} IS NULL OR ({test}))"


SQLITE = (
    f"""
    CREATE TABLE api_keys (
        key_id TEXT NOT NULL PRIMARY KEY CHECK (key_id <> ''),
        name TEXT NOT NULL CHECK (name <> ''),
        role TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
        environments TEXT CHECK (environments IS NULL OR json_valid(environments)),
        digest TEXT NOT NULL CHECK (length(digest) = 64),
        created_at TEXT NOT NULL DEFAULT {_SQLITE_NOW},
        {_sqlite_moment("expires_at")},
        {_sqlite_moment("last_used_at")},
        {_sqlite_moment("revoked_at")}
    )
    """,
)

POSTGRESQL = (
    """
    CREATE TABLE api_keys (
        key_id text COLLATE "C" NOT NULL PRIMARY KEY CHECK (key_id <> ''),
        name text NOT NULL CHECK (name <> ''),
        role text NOT NULL CHECK (role IN ('viewer', 'operator', 'admin')),
        environments json,
        digest text NOT NULL CHECK (length(digest) = 64),
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        expires_at timestamptz,
        last_used_at timestamptz,
        revoked_at timestamptz
    )
    """,
    # Supabase serves the tables of this schema to everyone who has the project's public key, unless row level
    # security is on. It does not bind the table's owner, whom the gateway connects as.
    "ALTER TABLE api_keys ENABLE ROW LEVEL SECURITY",
)


def upgrade() -> None:
    connection = op.get_bind()
    for statement in SQLITE if connection.dialect.name == "sqlite" else POSTGRESQL:
        connection.exec_driver_sql(statement)


def downgrade() -> None:
    op.get_bind().exec_driver_sql("DROP TABLE api_keys")
