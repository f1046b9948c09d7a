"""The first tables: model_cards, model_slugs, deployments, deployment_releases.

Written as plain SQL for each database: this is the public schema, and its triggers have no other form.
"""

# ruff: noqa: S608 - the SQL is put together from this file's own constants

from alembic import op

revision = "0001"
down_revision = None

_SQLITE_NOW = "(strftime('%Y-%m-%d %H:%M:%f', 'now') || '000')"
_SQLITE_ID = (
    "(lower(hex(randomblob(4)) || '-' || hex(randomblob(2)) || '-4' || substr(hex(randomblob(2)), 2) || '-' || "
    "substr('89ab', 1 + (abs(random()) % 4), 1) || substr(hex(randomblob(2)), 2) || '-' || hex(randomblob(6))))"
)


def _sqlite_moment(column: str, *, null: bool) -> str:
    """A column that holds only moments: anything else would make the whole table unreadable."""
    test = f"{column} GLOB '[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*' AND julianday({column}) IS NOT NULL"
    if null:
        return f"{column} TEXT CHECK ({column} IS NULL OR ({test}))"
    return f"{column} TEXT NOT NULL DEFAULT {_SQLITE_NOW} CHECK ({test})"


SQLITE = (
    f"""
    CREATE TABLE model_cards (
        model_id TEXT NOT NULL PRIMARY KEY DEFAULT {_SQLITE_ID}
            CHECK (length(model_id) = 36 AND model_id = lower(model_id)),
        model_name TEXT NOT NULL CHECK (model_name <> ''),
        model_version TEXT NOT NULL CHECK (model_version <> ''),
        repo_url TEXT NOT NULL,
        branch TEXT,
        card TEXT NOT NULL DEFAULT '{{}}' CHECK (json_valid(card)),
        revision INTEGER NOT NULL DEFAULT 1,
        {_sqlite_moment("created_at", null=False)},
        {_sqlite_moment("updated_at", null=False)},
        publication TEXT CHECK (publication IS NULL OR json_valid(publication)),
        {_sqlite_moment("published_at", null=True)},
        {_sqlite_moment("deleted_at", null=True)},
        UNIQUE (model_name, model_version)
    )
    """,
    "CREATE INDEX model_cards_changes ON model_cards (updated_at, model_id)",
    """
    CREATE TABLE model_slugs (
        slug TEXT NOT NULL PRIMARY KEY,
        model_name TEXT NOT NULL UNIQUE
    )
    """,
    f"""
    CREATE TABLE deployments (
        environment TEXT NOT NULL CHECK (environment <> ''),
        model_name TEXT NOT NULL,
        model_id TEXT NOT NULL REFERENCES model_cards (model_id),
        replicas INTEGER CHECK (replicas >= 1),
        resources TEXT CHECK (resources IS NULL OR json_valid(resources)),
        state TEXT NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'stopped', 'deleted')),
        revision INTEGER NOT NULL DEFAULT 1,
        stable_revision INTEGER,
        requested_by TEXT,
        {_sqlite_moment("created_at", null=False)},
        {_sqlite_moment("updated_at", null=False)},
        lease_holder TEXT,
        {_sqlite_moment("lease_until", null=True)},
        PRIMARY KEY (environment, model_name)
    )
    """,
    "CREATE INDEX deployments_model ON deployments (model_id)",
    f"""
    CREATE TABLE deployment_releases (
        environment TEXT NOT NULL,
        model_name TEXT NOT NULL,
        revision INTEGER NOT NULL,
        model_id TEXT NOT NULL,
        image TEXT,
        replicas INTEGER,
        resources TEXT,
        state TEXT NOT NULL,
        requested_by TEXT,
        {_sqlite_moment("created_at", null=False)},
        {_sqlite_moment("stable_at", null=True)},
        PRIMARY KEY (environment, model_name, revision)
    )
    """,
    # Each trigger names its columns, and what it writes is not among them: none sets itself off again.
    f"""
    CREATE TRIGGER model_cards_inserted AFTER INSERT ON model_cards
    BEGIN
        UPDATE model_cards SET created_at = {_SQLITE_NOW}, updated_at = {_SQLITE_NOW}, revision = 1
        WHERE model_id = NEW.model_id;
    END
    """,
    """
    CREATE TRIGGER model_cards_published BEFORE UPDATE OF model_name, model_version, repo_url, branch, card
    ON model_cards
    WHEN OLD.published_at IS NOT NULL AND (
        NEW.model_name IS NOT OLD.model_name OR NEW.model_version IS NOT OLD.model_version
        OR NEW.repo_url IS NOT OLD.repo_url OR NEW.branch IS NOT OLD.branch OR NEW.card IS NOT OLD.card)
    BEGIN
        SELECT RAISE(ABORT, 'a published model version never changes; insert a new version');
    END
    """,
    f"""
    CREATE TRIGGER model_cards_changed
    AFTER UPDATE OF model_name, model_version, repo_url, branch, card, deleted_at ON model_cards
    WHEN NEW.model_name IS NOT OLD.model_name OR NEW.model_version IS NOT OLD.model_version
        OR NEW.repo_url IS NOT OLD.repo_url OR NEW.branch IS NOT OLD.branch OR NEW.card IS NOT OLD.card
        OR NEW.deleted_at IS NOT OLD.deleted_at
    BEGIN
        UPDATE model_cards SET revision = OLD.revision + 1, updated_at = max({_SQLITE_NOW}, OLD.updated_at)
        WHERE model_id = NEW.model_id;
    END
    """,
    f"""
    CREATE TRIGGER model_cards_publication AFTER UPDATE OF publication, published_at ON model_cards
    WHEN NEW.publication IS NOT OLD.publication OR NEW.published_at IS NOT OLD.published_at
    BEGIN
        UPDATE model_cards SET updated_at = max({_SQLITE_NOW}, OLD.updated_at) WHERE model_id = NEW.model_id;
    END
    """,
    f"""
    CREATE TRIGGER deployments_inserted AFTER INSERT ON deployments
    BEGIN
        UPDATE deployments SET created_at = {_SQLITE_NOW}, updated_at = {_SQLITE_NOW}, revision = coalesce(
            (SELECT max(revision) + 1 FROM deployment_releases
             WHERE environment = NEW.environment AND model_name = NEW.model_name), 1)
        WHERE environment = NEW.environment AND model_name = NEW.model_name;
        INSERT INTO deployment_releases
            (environment, model_name, revision, model_id, image, replicas, resources, state, requested_by)
        SELECT d.environment, d.model_name, d.revision, d.model_id,
            (SELECT json_extract(publication, '$.image') FROM model_cards WHERE model_id = d.model_id),
            d.replicas, d.resources, d.state, d.requested_by
        FROM deployments d
        WHERE d.environment = NEW.environment AND d.model_name = NEW.model_name AND NOT EXISTS (
            SELECT 1 FROM deployment_releases r WHERE r.environment = d.environment
            AND r.model_name = d.model_name AND r.revision = d.revision);
    END
    """,
    """
    CREATE TRIGGER deployments_changed AFTER UPDATE OF model_id, replicas, resources, state ON deployments
    WHEN NEW.model_id IS NOT OLD.model_id OR NEW.replicas IS NOT OLD.replicas
        OR NEW.resources IS NOT OLD.resources OR NEW.state IS NOT OLD.state
    BEGIN
        UPDATE deployments SET revision = OLD.revision + 1
        WHERE environment = NEW.environment AND model_name = NEW.model_name;
    END
    """,
    f"""
    CREATE TRIGGER deployments_released AFTER UPDATE OF revision ON deployments
    WHEN NEW.revision > OLD.revision
    BEGIN
        UPDATE deployments SET updated_at = max({_SQLITE_NOW}, OLD.updated_at)
        WHERE environment = NEW.environment AND model_name = NEW.model_name;
        INSERT INTO deployment_releases
            (environment, model_name, revision, model_id, image, replicas, resources, state, requested_by)
        VALUES (NEW.environment, NEW.model_name, NEW.revision, NEW.model_id,
            (SELECT json_extract(publication, '$.image') FROM model_cards WHERE model_id = NEW.model_id),
            NEW.replicas, NEW.resources, NEW.state, NEW.requested_by);
    END
    """,
)

POSTGRESQL = (
    """
    CREATE TABLE model_cards (
        model_id uuid NOT NULL PRIMARY KEY DEFAULT gen_random_uuid(),
        model_name text COLLATE "C" NOT NULL CHECK (model_name <> ''),
        model_version text COLLATE "C" NOT NULL CHECK (model_version <> ''),
        repo_url text NOT NULL,
        branch text,
        card json NOT NULL DEFAULT '{}',
        revision integer NOT NULL DEFAULT 1,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        publication json,
        published_at timestamptz,
        deleted_at timestamptz,
        UNIQUE (model_name, model_version)
    )
    """,
    "CREATE INDEX model_cards_changes ON model_cards (updated_at, model_id)",
    """
    CREATE TABLE model_slugs (
        slug text COLLATE "C" NOT NULL PRIMARY KEY,
        model_name text COLLATE "C" NOT NULL UNIQUE
    )
    """,
    """
    CREATE TABLE deployments (
        environment text COLLATE "C" NOT NULL CHECK (environment <> ''),
        model_name text COLLATE "C" NOT NULL,
        model_id uuid NOT NULL REFERENCES model_cards (model_id),
        replicas integer CHECK (replicas >= 1),
        resources json,
        state text NOT NULL DEFAULT 'running' CHECK (state IN ('running', 'stopped', 'deleted')),
        revision integer NOT NULL DEFAULT 1,
        stable_revision integer,
        requested_by text,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        lease_holder text,
        lease_until timestamptz,
        PRIMARY KEY (environment, model_name)
    )
    """,
    "CREATE INDEX deployments_model ON deployments (model_id)",
    """
    CREATE TABLE deployment_releases (
        environment text COLLATE "C" NOT NULL,
        model_name text COLLATE "C" NOT NULL,
        revision integer NOT NULL,
        model_id uuid NOT NULL,
        image text,
        replicas integer,
        resources json,
        state text NOT NULL,
        requested_by text,
        created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        stable_at timestamptz,
        PRIMARY KEY (environment, model_name, revision)
    )
    """,
    # Rows must not all carry the moment at which a long transaction began: the defaults and triggers take
    # clock_timestamp(), not now().
    """
    CREATE FUNCTION constellation_model_cards_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        NEW.created_at := clock_timestamp();
        NEW.updated_at := NEW.created_at;
        NEW.revision := 1;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER model_cards_inserted BEFORE INSERT ON model_cards
    FOR EACH ROW EXECUTE FUNCTION constellation_model_cards_inserted()
    """,
    """
    CREATE FUNCTION constellation_model_cards_changed() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
        moment timestamptz := greatest(clock_timestamp(), OLD.updated_at + interval '1 microsecond');
        differs boolean := (NEW.model_name, NEW.model_version, NEW.repo_url, NEW.branch, NEW.card::text)
            IS DISTINCT FROM (OLD.model_name, OLD.model_version, OLD.repo_url, OLD.branch, OLD.card::text);
    BEGIN
        IF differs AND OLD.published_at IS NOT NULL THEN
            RAISE EXCEPTION USING ERRCODE = 'check_violation',
                MESSAGE = 'a published model version never changes; insert a new version';
        END IF;
        IF differs OR NEW.deleted_at IS DISTINCT FROM OLD.deleted_at THEN
            NEW.revision := OLD.revision + 1;
            NEW.updated_at := moment;
        ELSIF NEW.publication::text IS DISTINCT FROM OLD.publication::text
            OR NEW.published_at IS DISTINCT FROM OLD.published_at THEN
            NEW.updated_at := moment;
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER model_cards_changed BEFORE UPDATE ON model_cards
    FOR EACH ROW EXECUTE FUNCTION constellation_model_cards_changed()
    """,
    """
    CREATE FUNCTION constellation_deployments_inserted() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        NEW.created_at := clock_timestamp();
        NEW.updated_at := NEW.created_at;
        NEW.revision := coalesce((SELECT max(revision) + 1 FROM deployment_releases
            WHERE environment = NEW.environment AND model_name = NEW.model_name), 1);
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER deployments_inserted BEFORE INSERT ON deployments
    FOR EACH ROW EXECUTE FUNCTION constellation_deployments_inserted()
    """,
    """
    CREATE FUNCTION constellation_deployments_changed() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF (NEW.model_id, NEW.replicas, NEW.resources::text, NEW.state)
            IS DISTINCT FROM (OLD.model_id, OLD.replicas, OLD.resources::text, OLD.state) THEN
            NEW.revision := OLD.revision + 1;
        END IF;
        IF NEW.revision > OLD.revision THEN
            NEW.updated_at := greatest(clock_timestamp(), OLD.updated_at + interval '1 microsecond');
        END IF;
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER deployments_changed BEFORE UPDATE ON deployments
    FOR EACH ROW EXECUTE FUNCTION constellation_deployments_changed()
    """,
    """
    CREATE FUNCTION constellation_deployments_released() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF TG_OP = 'UPDATE' AND NEW.revision <= OLD.revision THEN
            RETURN NULL;
        END IF;
        INSERT INTO deployment_releases
            (environment, model_name, revision, model_id, image, replicas, resources, state, requested_by)
        VALUES (NEW.environment, NEW.model_name, NEW.revision, NEW.model_id,
            (SELECT publication ->> 'image' FROM model_cards WHERE model_id = NEW.model_id),
            NEW.replicas, NEW.resources, NEW.state, NEW.requested_by);
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER deployments_released AFTER INSERT OR UPDATE ON deployments
    FOR EACH ROW EXECUTE FUNCTION constellation_deployments_released()
    """,
)

# A table takes its triggers with it; PostgreSQL's functions stand by themselves.
TABLES = ("deployment_releases", "deployments", "model_slugs", "model_cards")
FUNCTIONS = (
    "constellation_deployments_released",
    "constellation_deployments_changed",
    "constellation_deployments_inserted",
    "constellation_model_cards_changed",
    "constellation_model_cards_inserted",
)


def upgrade() -> None:
    connection = op.get_bind()
    for statement in SQLITE if connection.dialect.name == "sqlite" else POSTGRESQL:
        connection.exec_driver_sql(statement)


def downgrade() -> None:
    connection = op.get_bind()
    for table in TABLES:
        connection.exec_driver_sql(f"DROP TABLE {table}")
    if connection.dialect.name == "postgresql":
        for function in FUNCTIONS:
            connection.exec_driver_sql(f"DROP FUNCTION {function}()")
