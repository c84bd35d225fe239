"""The catalog: securables, principals, what holds between them, and what is yet to be told."""

from __future__ import annotations

from alembic import op

revision = "0001"
down_revision = None

# A name's levels, as in schemas.kinds.NAME.
LEVEL = "[A-Za-z0-9_][A-Za-z0-9_-]{0,99}"
PRIVILEGES = "ARRAY['BROWSE','CREATE','EXECUTE','MANAGE','MODIFY','QUERY','SELECT','USE']"

# Position 0 stands for what nobody made: the top of everything, and the group of everyone.
TOLD = """
    position bigint NOT NULL,
    changed_at timestamptz NOT NULL,
    changed_by text NOT NULL
"""
DESCRIBED = f"""
    owner text REFERENCES principal (name) ON DELETE NO ACTION,
    comment text NOT NULL DEFAULT '',
    tags json NOT NULL DEFAULT '{{}}',
    properties json NOT NULL DEFAULT '{{}}',
    spec json NOT NULL DEFAULT '{{}}',
    created_at timestamptz NOT NULL,
    created_by text NOT NULL,
    {TOLD},
    CHECK (owner IS NOT NULL OR position = 0)
"""

TABLES = f"""
CREATE TABLE clock (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    position bigint NOT NULL CHECK (position >= 0)
);

CREATE TABLE principal (
    name text PRIMARY KEY CHECK (name ~ '^{LEVEL}$'),
    kind text NOT NULL CHECK (kind IN ('group', 'service_principal', 'tenant', 'user')),
    tenant text,
    tenant_kind text GENERATED ALWAYS AS (CASE WHEN tenant IS NOT NULL THEN 'tenant' END) STORED,
    acts boolean GENERATED ALWAYS AS (kind IN ('service_principal', 'user')) STORED,
    {DESCRIBED},
    CONSTRAINT principal_tenant_check
        CHECK ((tenant IS NOT NULL) = (kind IN ('service_principal', 'user'))),
    UNIQUE (name, kind),
    UNIQUE (name, acts),
    CONSTRAINT principal_tenant_fkey
        FOREIGN KEY (tenant, tenant_kind) REFERENCES principal (name, kind)
);
CREATE INDEX ON principal (owner);
CREATE INDEX ON principal (tenant);

CREATE TABLE membership (
    group_name text NOT NULL CHECK (group_name <> 'everyone'),
    group_kind text GENERATED ALWAYS AS ('group') STORED,
    member text NOT NULL CHECK (member <> 'everyone'),
    PRIMARY KEY (group_name, member),
    CONSTRAINT membership_group_fkey
        FOREIGN KEY (group_name, group_kind) REFERENCES principal (name, kind),
    CONSTRAINT membership_member_fkey FOREIGN KEY (member) REFERENCES principal (name)
);
CREATE INDEX ON membership (member);

CREATE TABLE securable (
    name text PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN (
        'agent', 'catalog', 'connection', 'endpoint', 'function', 'index', 'model', 'policy',
        'prompt', 'root', 'schema', 'table'
    )),
    parent text CONSTRAINT securable_parent_fkey REFERENCES securable (name) ON DELETE RESTRICT,
    {DESCRIBED},
    CONSTRAINT securable_name_check CHECK (CASE kind
        WHEN 'root' THEN name = '*'
        WHEN 'catalog' THEN name ~ '^{LEVEL}$'
        WHEN 'schema' THEN name ~ '^{LEVEL}\\.{LEVEL}$'
        ELSE name ~ '^{LEVEL}\\.{LEVEL}\\.{LEVEL}$'
    END),
    CONSTRAINT securable_parent_check CHECK (coalesce(parent, '') = CASE kind
        WHEN 'root' THEN ''
        WHEN 'catalog' THEN '*'
        ELSE regexp_replace(name, '\\.[^.]*$', '')
    END),
    UNIQUE (name, kind)
);
CREATE INDEX ON securable (owner);
CREATE INDEX ON securable (parent);

-- The last number given out under a name; outlives the object, so that no number comes twice.
CREATE TABLE numbering (
    name text PRIMARY KEY,
    last integer NOT NULL CHECK (last > 0)
);

CREATE TABLE version (
    securable text NOT NULL,
    number integer NOT NULL CHECK (number > 0),
    kind text NOT NULL CHECK (kind IN ('function', 'model', 'prompt')),
    spec json NOT NULL,
    comment text NOT NULL,
    {TOLD},
    PRIMARY KEY (securable, number),
    CONSTRAINT version_securable_fkey
        FOREIGN KEY (securable, kind) REFERENCES securable (name, kind) ON DELETE RESTRICT
);

CREATE TABLE alias (
    securable text NOT NULL REFERENCES securable (name) ON DELETE RESTRICT,
    name text NOT NULL
        CONSTRAINT alias_name_check CHECK (name ~ '^{LEVEL}$' AND name !~ '^[0-9]+$'),
    number integer NOT NULL,
    PRIMARY KEY (securable, name),
    CONSTRAINT alias_number_fkey
        FOREIGN KEY (securable, number) REFERENCES version (securable, number) ON DELETE RESTRICT
);
CREATE INDEX ON alias (securable, number);

-- What a securable, or one of its versions, needs: an object, a version of it, or an alias.
CREATE TABLE reference (
    source text NOT NULL REFERENCES securable (name) ON DELETE CASCADE,
    source_version integer,
    target text NOT NULL,
    target_version integer,
    target_alias text,
    UNIQUE NULLS NOT DISTINCT (source, source_version, target, target_version, target_alias),
    FOREIGN KEY (source, source_version) REFERENCES version (securable, number) ON DELETE CASCADE,
    CONSTRAINT reference_target_fkey
        FOREIGN KEY (target) REFERENCES securable (name) ON DELETE RESTRICT,
    CONSTRAINT reference_version_fkey FOREIGN KEY (target, target_version)
        REFERENCES version (securable, number) ON DELETE RESTRICT,
    CONSTRAINT reference_alias_fkey FOREIGN KEY (target, target_alias)
        REFERENCES alias (securable, name) ON DELETE RESTRICT
);
CREATE INDEX ON reference (target);

CREATE TABLE signing_key (
    key_id text PRIMARY KEY,
    principal text NOT NULL,
    acts boolean GENERATED ALWAYS AS (true) STORED,
    public_key bytea NOT NULL CHECK (length(public_key) = 32),
    not_before timestamptz NOT NULL,
    expires_at timestamptz,
    revoked_at timestamptz,
    {TOLD},
    CONSTRAINT signing_key_id_check
        CHECK (key_id = left(encode(sha256(public_key), 'hex'), 32)),
    CONSTRAINT signing_key_time_check CHECK (expires_at > not_before),
    CONSTRAINT signing_key_principal_fkey FOREIGN KEY (principal, acts)
        REFERENCES principal (name, acts) ON DELETE RESTRICT
);
CREATE INDEX ON signing_key (principal);

CREATE TABLE privilege_grant (
    securable text NOT NULL
        CONSTRAINT privilege_grant_securable_fkey REFERENCES securable (name) ON DELETE RESTRICT,
    principal text NOT NULL
        CONSTRAINT privilege_grant_principal_fkey REFERENCES principal (name) ON DELETE RESTRICT,
    allow text[] NOT NULL CHECK (allow <@ {PRIVILEGES}),
    deny text[] NOT NULL CHECK (deny <@ {PRIVILEGES}),
    {TOLD},
    PRIMARY KEY (securable, principal),
    CHECK (cardinality(allow) + cardinality(deny) > 0)
);
CREATE INDEX ON privilege_grant (principal);

CREATE TABLE outbox (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    topic text NOT NULL,
    payload text NOT NULL
);

CREATE TABLE command (
    tenant text NOT NULL,
    principal text NOT NULL,
    request_id text NOT NULL,
    reply text NOT NULL,
    at timestamptz NOT NULL,
    PRIMARY KEY (tenant, principal, request_id)
);
CREATE INDEX ON command (at);
"""

RULES = """
CREATE FUNCTION refuse_circle() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        WITH RECURSIVE below (name) AS (
            SELECT NEW.member
            UNION
            SELECT membership.member FROM membership JOIN below ON group_name = below.name
        )
        SELECT FROM below WHERE name = NEW.group_name
    ) THEN
        RAISE EXCEPTION 'a group would contain itself'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'membership_circle';
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER membership_circle AFTER INSERT OR UPDATE ON membership
    FOR EACH ROW EXECUTE FUNCTION refuse_circle();

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% does not change any more', TG_TABLE_NAME
        USING ERRCODE = 'check_violation', CONSTRAINT = TG_NAME;
END $$;
CREATE TRIGGER version_is_final BEFORE UPDATE ON version
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER signing_key_stays BEFORE DELETE ON signing_key
    FOR EACH ROW EXECUTE FUNCTION refuse_change();
-- Of a key only the time of its revocation moves, and only towards the past.
CREATE TRIGGER signing_key_is_final BEFORE UPDATE ON signing_key
    FOR EACH ROW WHEN (
        (NEW.key_id, NEW.principal, NEW.public_key, NEW.not_before)
            IS DISTINCT FROM (OLD.key_id, OLD.principal, OLD.public_key, OLD.not_before)
        OR NEW.expires_at IS DISTINCT FROM OLD.expires_at
        OR (OLD.revoked_at IS NOT NULL AND coalesce(NEW.revoked_at > OLD.revoked_at, true))
    )
    EXECUTE FUNCTION refuse_change();

CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('outbox', '');
    RETURN NULL;
END $$;
CREATE TRIGGER outbox_filled AFTER INSERT ON outbox
    FOR EACH STATEMENT EXECUTE FUNCTION tell();
"""

BUILT_IN = """
INSERT INTO clock (position) VALUES (0);
INSERT INTO principal (name, kind, created_at, created_by, position, changed_at, changed_by)
    VALUES ('everyone', 'group', now(), '', 0, now(), '');
INSERT INTO securable (name, kind, created_at, created_by, position, changed_at, changed_by)
    VALUES ('*', 'root', now(), '', 0, now(), '');
"""


def upgrade() -> None:
    """Makes all of it, in an empty database."""
    for part in (TABLES, RULES, BUILT_IN):
        op.execute(part)
