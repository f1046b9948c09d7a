"""Alembic's entry: runs migrations on the connection that `schema.migrate` hands over, in its transaction."""

from alembic import context

from constellation_docker.cards.schema import VERSION_TABLE
from constellation_docker.cards.tables import Tables

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Tables.metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
