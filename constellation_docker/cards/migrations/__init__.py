"""The store's schema, step by step (Alembic). `CardStore.open` applies what is missing."""
