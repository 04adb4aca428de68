"""Rules added by operators to the tables of iidq, against jobs with a file named odd."""

import psycopg

from tests.job_rows import CONTENT_HASH, REGISTRY_ADDRESS

SEED = f"""INSERT INTO "VerificationJob"
    (type, "contentHash", "manifestUri", "registryAddress", "fileName", status, ready, "completedAt")
    VALUES ('verify', '{CONTENT_HASH}', 'x', '{REGISTRY_ADDRESS}', 'odd', 'cancelled', false, now());"""  # noqa: S608
IS_ODD = "NEW.\"fileName\" = 'odd'"


def trigger(body: str, condition: str = IS_ODD, when: str = "INSERT", table: str = "VerificationJob") -> str:
    """Return the statements for a trigger with the body for rows of the condition."""
    return f"""
        CREATE OR REPLACE FUNCTION operators_rule() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          IF {condition} THEN {body} END IF;
          RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END; END $$;
        CREATE TRIGGER operators_rule BEFORE {when} ON "{table}" FOR EACH ROW EXECUTE FUNCTION operators_rule();"""


CONFLICTS = {
    "unique index": f"""{SEED}
        CREATE UNIQUE INDEX only_one ON "VerificationJob" ("fileName") WHERE "fileName" = 'odd'""",
    "exclusion": f"""{SEED} CREATE EXTENSION IF NOT EXISTS btree_gist; ALTER TABLE "VerificationJob"
        ADD CONSTRAINT only_one EXCLUDE ("fileName" WITH =) WHERE ("fileName" = 'odd')""",
    "foreign key": """CREATE TABLE files (name text PRIMARY KEY); INSERT INTO files VALUES ('good');
        ALTER TABLE "VerificationJob" ADD CONSTRAINT only_one FOREIGN KEY ("fileName") REFERENCES files""",
}
"""By kind: statements for refusing an insert of an odd job because of another row, under the name only_one."""

REFUSALS = {
    "check": """ALTER TABLE "VerificationJob" ADD CONSTRAINT not_odd CHECK ("fileName" <> 'odd')""",
    "not null": """
        ALTER TABLE "VerificationJob" ADD not_odd text GENERATED ALWAYS AS (nullif("fileName", 'odd')) STORED;
        ALTER TABLE "VerificationJob" ALTER not_odd SET NOT NULL""",
    "domain": "CREATE DOMAIN plain AS text CONSTRAINT not_odd CHECK (VALUE <> 'odd');"
    + trigger('PERFORM NEW."fileName"::plain;'),
    "raise": trigger("RAISE 'secret of %', NEW.\"fileName\";"),
    "state of its own": trigger("RAISE 'secret' USING ERRCODE = 'AB123';"),
    "bad value": trigger("PERFORM 'secret'::integer;"),
    "drop": trigger("RETURN NULL;"),
}
"""By kind: statements for refusing an insert of an odd job because of its values, by the name not_odd or in
operators_rule.
"""

FAULTS = {
    "missing table": trigger("PERFORM FROM missing_audit;"),
    "missing function": trigger("PERFORM missing_audit();"),
    "missing column": trigger("NEW.missing_audit := 1;"),
    "conflict": trigger("RAISE 'again' USING ERRCODE = '40001';"),
    "time-out": trigger("RAISE 'again' USING ERRCODE = '57014';"),
    "lost connection of its own": trigger("RAISE 'no audit' USING ERRCODE = '08006';"),
    "state of an object": trigger("PERFORM nextval('s'), currval('t');") + "CREATE SEQUENCE s; CREATE SEQUENCE t;",
}
"""By kind: an operator's code in operators_rule, failing for an odd job by its own fault."""


def apply(sql: psycopg.Connection[object], rule: str) -> None:
    """Run the statements."""
    sql.execute(rule.encode())
