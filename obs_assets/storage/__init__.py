"""Files and databases: frames and receipts on disk, atomic writes, connections to PostgreSQL."""
