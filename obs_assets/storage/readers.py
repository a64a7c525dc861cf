"""The rights of roles that read stored events: alerts and their messages, without the messages' bodies."""

from typing import LiteralString

# A body has events and texts of templates; an error can repeat an answer of the receiver.
_COLUMNS = "webhook_id, destination, hour, rule, events, state, attempts, created_at, sent_at"

GRANT_ALERTS: LiteralString = f"""
DO $do$ DECLARE reader text; BEGIN
    -- Without a webhook there is no such table, and its first use makes it.
    IF to_regclass('obs.alerts') IS NULL THEN RETURN; END IF;
    FOR reader IN
        SELECT DISTINCT grantee::regrole::text FROM pg_class, aclexplode(relacl)
        WHERE oid = to_regclass('obs.hour_loads') AND privilege_type = 'SELECT'
            AND grantee <> 0 AND grantee <> relowner
    LOOP
        EXECUTE 'GRANT SELECT ON obs.alerts, obs.alert_notices TO ' || reader;
        EXECUTE 'GRANT SELECT ({_COLUMNS}) ON obs.webhook_dispatches TO ' || reader;
    END LOOP;
END $do$"""
"""SQL: whoever reads the ledger reads alerts too."""
