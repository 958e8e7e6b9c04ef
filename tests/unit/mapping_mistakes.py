"""Mistakes in a mapping file, one replacement each, and what is said about them."""

from __future__ import annotations

from dataclasses import dataclass

GOOD = """\
title = "orders become runs"

[source]
table = "orders"
key = "id"

[source.columns]
id = { type = "bigint", not_null = true }
label = { type = "text" }
state = { type = "text" }
tries = { type = "integer", optional = true }
payload = { type = "jsonb" }
at = { type = "timestamp" }
old = { type = "text" }
owner = { type = "any" }

[target]
table = "runs"

[fields.run_id]
copy = "id"
uuid = "shop/orders"
keep = "metadata.legacy.id"

[fields.kind]
constant = "task"

[fields.name]
copy = "label"
too_long = "shorten"
keep = "metadata.legacy.label"

[fields.status]
copy = "state"

[fields.status.values]
open = "running"
shut = "completed"

[fields.attempt]
copy = "tries"
default = 0
plus = 1
lossy = "nobody counts"

[fields.params]
copy = "payload"

[fields.created_at]
copy = "at"
zone = "Europe/Berlin"
keep = "metadata.legacy.at"

[fields."metadata.owner"]
copy = "owner"

[fields."metadata.entity_type"]
constant = "owner"
when_present = "owner"

[fields."metadata.migrated_from"]
origin = true

[dropped]
old = "nobody reads it"
"""


@dataclass(frozen=True)
class Mistake:
    """``old`` becomes ``new``. Then ``line`` is how the line that the error names begins (None: it names none).

    ``path`` is a part of its key path, ``words`` of its sentence; ``in_schema``: the JSON Schema refuses the file, too.
    """

    name: str
    old: str
    new: str
    line: str | None
    path: str
    words: str
    in_schema: bool = False


MISTAKES = (
    Mistake(
        "unknown key",
        'copy = "label"',
        'copi = "label"',
        'copi = "label"',
        "fields.name.copi",
        "did you mean 'copy'?",
        in_schema=True,
    ),
    Mistake("unknown table", "[dropped]", "[droped]", "[droped]", "droped", "did you mean 'dropped'?", in_schema=True),
    Mistake("no source", 'table = "orders"\n', "", "[source]", "source", "'table' is missing", in_schema=True),
    Mistake("no fields", "[fields.", "[felds.", "[felds.run_id]", "felds", "did you mean 'fields'?", in_schema=True),
    Mistake(
        "unknown source column", '"label"', '"lable"', 'copy = "lable"', "fields.name.copy", "did you mean 'label'?"
    ),
    Mistake(
        "unknown target column", "[fields.name]", "[fields.nam]", "[fields.nam]", "fields.nam", "did you mean 'name'?"
    ),
    Mistake(
        "unknown target table",
        'table = "runs"',
        'table = "run"',
        'table = "run"',
        "target.table",
        "did you mean 'runs'?",
    ),
    Mistake("missing target file", 'table = "runs"', 'file = "none.toml"', None, "", "there is no such mapping file"),
    Mistake("unknown key column", 'key = "id"', 'key = "idd"', 'key = "idd"', "source.key", "did you mean 'id'?"),
    Mistake("optional key", "not_null = true", "optional = true", 'key = "id"', "source.key", "cannot be optional"),
    Mistake(
        "unknown type",
        '"bigint"',
        '"bigit"',
        'id = { type = "bigit", not_nul',
        "source.columns.id.type",
        "is not a type",
        in_schema=True,
    ),
    Mistake(
        "type is no string",
        '"bigint"',
        "8",
        "id = { type = 8, not_null = true }",
        "source.columns.id.type",
        "must be a string, not 8",
        in_schema=True,
    ),
    Mistake(
        "column is no table",
        'at = { type = "timestamp" }',
        "at = 1",
        "at = 1",
        "source.columns.at",
        "must be a table",
        in_schema=True,
    ),
    Mistake(
        "flag is no flag",
        "not_null = true",
        'not_null = "yes"',
        'id = { type = "bigint", not_nu',
        "source.columns.id.not_null",
        "true or false",
        in_schema=True,
    ),
    Mistake(
        "empty text",
        'uuid = "shop/orders"',
        'uuid = " "',
        'uuid = " "',
        "fields.run_id.uuid",
        "must not be empty",
        in_schema=True,
    ),
    Mistake(
        "nothing to start from",
        'constant = "task"\n',
        "",
        "[fields.kind]",
        "fields.kind",
        "exactly one of",
        in_schema=True,
    ),
    Mistake(
        "two starts",
        'constant = "task"',
        'constant = "task"\ncopy = "label"',
        "[fields.kind]",
        "fields.kind",
        "exactly one of",
        in_schema=True,
    ),
    Mistake(
        "origin is false",
        "origin = true",
        "origin = false",
        "origin = false",
        'migrated_from".origin',
        "can only be true",
        in_schema=True,
    ),
    Mistake(
        "a step on a constant",
        'constant = "task"',
        'constant = "task"\nplus = 1',
        "plus = 1",
        "fields.kind.plus",
        "'copy' only",
        in_schema=True,
    ),
    Mistake(
        "keep on a constant",
        'constant = "task"',
        'constant = "task"\nkeep = "metadata.x"',
        'keep = "metadata.x"',
        "fields.kind.keep",
        "'copy' only",
        in_schema=True,
    ),
    Mistake(
        "when_present on a copy",
        'copy = "payload"',
        'copy = "payload"\nwhen_present = "label"',
        'when_present = "label"',
        "fields.params.when_present",
        "'constant' only",
        in_schema=True,
    ),
    Mistake(
        "others without values",
        'copy = "payload"',
        'copy = "payload"\nothers = "pass"',
        'others = "pass"',
        "fields.params.others",
        "'values' only",
        in_schema=True,
    ),
    Mistake(
        "constant is a date",
        'constant = "task"',
        "constant = 2020-01-01",
        "constant = 2020-01-01",
        "fields.kind.constant",
        "cannot be a constant",
        in_schema=True,
    ),
    Mistake(
        "constant is a float",
        'constant = "task"',
        "constant = 1.5",
        "constant = 1.5",
        "fields.kind.constant",
        "cannot be a constant",
        in_schema=True,
    ),
    Mistake(
        "constant holds a date",
        'constant = "owner"',
        "constant = { a = [2020-01-01] }",
        "constant = { a = [2020-01-01] }",
        'entity_type".constant',
        "is no JSON value",
    ),
    Mistake(
        "constant beyond 64 bits",
        'constant = "owner"',
        "constant = 9223372036854775808",
        "constant = 9223372036854775808",
        'entity_type".constant',
        "cannot be a constant",
    ),
    Mistake(
        "constant of another type",
        'constant = "task"',
        "constant = 1",
        "[fields.kind]",
        "fields.kind",
        "gives integer, but runs.kind is varchar(20)",
    ),
    Mistake(
        "constant too long",
        'constant = "task"',
        'constant = "ttttttttttttttttttttt"',
        'constant = "ttttttttttttttttttttt"',
        "fields.kind.constant",
        "has 21 characters, the target takes 20",
    ),
    Mistake("nul in a constant", 'constant = "task"', 'constant = "\\u0000"', "[fields.run_id]", "fields", "U+0000"),
    Mistake(
        "a copy of another type",
        'copy = "payload"',
        'copy = "label"',
        "[fields.params]",
        "fields.params",
        "gives text, but runs.params is jsonb; add a 'cast'",
    ),
    Mistake(
        "no such cast",
        'uuid = "shop/orders"',
        'cast = "uuid"',
        'cast = "uuid"',
        "fields.run_id.cast",
        "no cast from bigint to uuid",
    ),
    Mistake(
        "unknown cast",
        'uuid = "shop/orders"',
        'cast = "money"',
        'cast = "money"',
        "fields.run_id.cast",
        "no cast from bigint to money",
        in_schema=True,
    ),
    Mistake(
        "no such zone",
        "Europe/Berlin",
        "Europe/Berlim",
        'zone = "Europe/Berlim"',
        "fields.created_at.zone",
        "no time zone 'Europe/Berlim'",
    ),
    Mistake(
        "zone is a folder",
        "Europe/Berlin",
        "Europe",
        'zone = "Europe"',
        "fields.created_at.zone",
        "no time zone 'Europe'",
    ),
    Mistake(
        "zone of a text",
        'copy = "label"',
        'copy = "label"\nzone = "UTC"',
        'zone = "UTC"',
        "fields.name.zone",
        "works on timestamp, but is given text",
    ),
    Mistake(
        "plus on a text",
        'copy = "label"',
        'copy = "label"\nplus = 1',
        "plus = 1",
        "fields.name.plus",
        "works on integer or bigint",
    ),
    Mistake(
        "plus out of range",
        "plus = 1",
        "plus = 2147483648",
        "plus = 2147483648",
        "fields.attempt.plus",
        "out of the range of integer",
    ),
    Mistake(
        "uuid from json",
        'copy = "id"',
        'copy = "payload"',
        'uuid = "shop/orders"',
        "fields.run_id.uuid",
        "but is given jsonb",
    ),
    Mistake(
        "default of another type",
        "default = 0",
        'default = "0"',
        'default = "0"',
        "fields.attempt.default",
        "must be integer, not '0'",
    ),
    Mistake(
        "default out of range",
        "default = 0",
        "default = 2147483647",
        "default = 2147483647",
        "fields.attempt.default",
        "refused by the steps after it (out_of_range)",
    ),
    Mistake(
        "no values",
        'open = "running"\nshut = "completed"\n',
        "",
        "[fields.status.values]",
        "fields.status.values",
        "is empty",
        in_schema=True,
    ),
    Mistake(
        "values of two types",
        'shut = "completed"',
        "shut = 1",
        "[fields.status.values]",
        "fields.status.values",
        "of one type",
    ),
    Mistake(
        "value is a table",
        'shut = "completed"',
        "shut = { a = 1 }",
        "[fields.status.values]",
        "fields.status.values",
        "of one type",
        in_schema=True,
    ),
    Mistake(
        "value too long",
        '"completed"',
        '"ccccccccccccccccccccc"',
        'shut = "ccccccccccccccccccccc"',
        "fields.status.values",
        "has 21 characters",
    ),
    Mistake(
        "key of values of another type",
        "default = 0\n",
        "values = { one = 1 }\n",
        "values = { one = 1 }",
        "fields.attempt.values.one",
        "is not a integer value",
    ),
    Mistake(
        "key of values not canonical",
        "default = 0\n",
        'values = { "01" = 1 }\n',
        'values = { "01" = 1 }',
        "fields.attempt.values.01",
        "'01' is not a integer value",
    ),
    Mistake(
        "key of values out of range",
        "default = 0\n",
        "values = { 2147483648 = 1 }\n",
        "values = { 2147483648 = 1 }",
        "fields.attempt.values.2147483648",
        "is not a integer value",
    ),
    Mistake(
        "others of another type",
        "default = 0\nplus = 1",
        'values = { 1 = "a" }\nothers = "pass"',
        'others = "pass"',
        "fields.attempt.others",
        "integer would become text",
    ),
    Mistake(
        "unknown others",
        "[fields.status]\n",
        '[fields.status]\nothers = "pas"\n',
        'others = "pas"',
        "fields.status.others",
        "did you mean 'pass'?",
        in_schema=True,
    ),
    Mistake(
        "unknown too_long",
        '"shorten"',
        '"shortn"',
        'too_long = "shortn"',
        "fields.name.too_long",
        "did you mean 'shorten'?",
        in_schema=True,
    ),
    Mistake(
        "too_long without a limit",
        'copy = "payload"',
        'copy = "payload"\ntoo_long = "shorten"',
        'too_long = "shorten"',
        "fields.params.too_long",
        "no length limit",
    ),
    Mistake(
        "read from a text",
        'copy = "label"',
        'copy = "label"\nread = ["a"]',
        'read = ["a"]',
        "fields.name.read",
        "works on jsonb, but is given text",
    ),
    Mistake(
        "read is no list",
        'copy = "payload"',
        'copy = "payload"\nread = "a"',
        'read = "a"',
        "fields.params.read",
        "must be a list of keys",
        in_schema=True,
    ),
    Mistake(
        "read_as something",
        'copy = "payload"',
        'copy = "payload"\nread = ["a"]\nread_as = "uuid"',
        'read_as = "uuid"',
        "fields.params.read_as",
        "must be 'jsonb' or 'text'",
        in_schema=True,
    ),
    Mistake(
        "a path in no json",
        "[fields.kind]",
        '[fields."kind.x"]',
        '[fields."kind.x"]',
        'fields."kind.x"',
        "only a jsonb column has paths",
    ),
    Mistake(
        "a path not quoted",
        '[fields."metadata.owner"]',
        "[fields.metadata.owner]",
        "[fields.metadata.owner]",
        "fields.metadata.owner",
        "unknown key 'owner'",
        in_schema=True,
    ),
    Mistake(
        "a path with an empty part",
        "metadata.owner",
        "metadata..owner",
        '[fields."metadata..owner"]',
        'fields."metadata..owner"',
        "empty or badly quoted part",
    ),
    Mistake(
        "keep in no json",
        'keep = "metadata.legacy.at"',
        'keep = "name.at"',
        'keep = "name.at"',
        "fields.created_at.keep",
        "not a path in a jsonb column",
    ),
    Mistake(
        "keep a whole column",
        'keep = "metadata.legacy.at"',
        'keep = "metadata"',
        'keep = "metadata"',
        "fields.created_at.keep",
        "name a path inside it",
    ),
    Mistake(
        "keep with nothing lost",
        'copy = "payload"',
        'copy = "payload"\nkeep = "metadata.p"',
        'keep = "metadata.p"',
        "fields.params.keep",
        "nothing is lost here",
    ),
    Mistake(
        "lossy with nothing lost",
        'copy = "payload"',
        'copy = "payload"\nlossy = "why"',
        'lossy = "why"',
        "fields.params.lossy",
        "nothing is lost here",
    ),
    Mistake(
        "kept and lossy",
        'lossy = "nobody counts"',
        'lossy = "x"\nkeep = "metadata.t"',
        'lossy = "x"',
        "fields.attempt.lossy",
        "leave one of the two out",
    ),
    Mistake("lost", 'lossy = "nobody counts"\n', "", "[fields.attempt]", "fields.attempt", "say where to 'keep' it"),
    Mistake(
        "two rules for one place",
        "metadata.owner",
        "metadata.legacy",
        '[fields."metadata.legacy"]',
        'fields."metadata.legacy"',
        "already writes",
    ),
    Mistake(
        "a column nobody copies",
        'old = "nobody reads it"\n',
        "",
        'old = { type = "text" }',
        "source.columns.old",
        "no field copies this column",
    ),
    Mistake(
        "dropped and copied",
        'old = "nobody reads it"',
        'old = "x"\nowner = "y"',
        'owner = "y"',
        "dropped.owner",
        "is dropped, but a field copies it",
    ),
    Mistake(
        "dropped unknown", 'old = "nobody reads it"', 'odl = "x"', 'odl = "x"', "dropped.odl", "did you mean 'old'?"
    ),
    Mistake(
        "dropped without a reason",
        'old = "nobody reads it"',
        'old = ""',
        'old = ""',
        "dropped.old",
        "must not be empty",
        in_schema=True,
    ),
    Mistake(
        "optional and not null",
        '{ type = "any" }',
        '{ type = "any", optional = true, not_null = true }',
        'owner = { type = "any", option',
        "source.columns.owner",
        "cannot be both",
    ),
    Mistake(
        "nothing for a NOT NULL column",
        '[fields.kind]\nconstant = "task"\n',
        "",
        "[fields.run_id]",
        "fields",
        "runs.kind is NOT NULL and nothing produces it",
    ),
    Mistake(
        "a NOT NULL column that depends",
        'constant = "task"',
        'constant = "task"\nwhen_present = "owner"',
        'when_present = "owner"',
        "fields.kind.when_present",
        "cannot depend on another column",
    ),
    Mistake(
        "the key from elsewhere",
        '[fields.run_id]\ncopy = "id"',
        '[fields.lane]\ncopy = "label"\n[fields."metadata.id"]\ncopy = "id"\n[fields.run_id]\ncopy = "label"',
        'copy = "label"',
        "fields.run_id.copy",
        "run_id must come from the source key id",
    ),
    Mistake(
        "a step that joins keys",
        'uuid = "shop/orders"',
        'default = 1\nuuid = "x"',
        "[fields.run_id]",
        "fields.run_id",
        "two rows must not become one",
    ),
    Mistake(
        "no origin",
        '[fields."metadata.migrated_from"]\norigin = true\n',
        "",
        "[fields.run_id]",
        "fields",
        "exactly one field must carry 'origin = true'",
    ),
    Mistake(
        "two origins",
        "[dropped]",
        "[fields.lane]\norigin = true\n\n[dropped]",
        "[fields.run_id]",
        "fields",
        "exactly one field must carry 'origin = true'",
    ),
    Mistake(
        "a link of another type",
        'copy = "label"',
        'copy = "label"\nlink = true',
        "link = true",
        "fields.name.link",
        "must have the type of run_id",
    ),
    Mistake(
        "a link in a path",
        '[fields."metadata.owner"]',
        '[fields."metadata.owner"]\nlink = true',
        "link = true",
        'fields."metadata.owner".link',
        "a column of its own",
    ),
    Mistake(
        "a link that is the key",
        'copy = "id"',
        'copy = "id"\nlink = true',
        "link = true",
        "fields.run_id.link",
        "must be able to be NULL",
    ),
    Mistake(
        "requires itself",
        'copy = "label"',
        'copy = "label"\nrequires = "shop/orders"',
        'requires = "shop/orders"',
        "fields.name.requires",
        "is a 'link'",
    ),
    Mistake(
        "requires no mapping",
        'copy = "label"',
        'copy = "label"\nrequires = "orders"',
        'requires = "orders"',
        "fields.name.requires",
        "<app>/<entity>",
    ),
    Mistake(
        "requires two",
        "[fields.kind]",
        '[fields.lane]\ncopy = "old"\nrequires = "a/b"\n[fields.error]\ncopy = "old"\nrequires = "a/c"\n[fields.kind]',
        'requires = "a/c"',
        "fields.error.requires",
        "only one field",
    ),
    Mistake(
        "json that may be NULL",
        "metadata.owner",
        "params.owner",
        "[fields.params]",
        "fields.params",
        "must not be NULL; add 'default = {}'",
    ),
    Mistake(
        "a default with a key in use",
        'copy = "payload"',
        'copy = "payload"\ndefault = { owner = 1 }\nlossy = "x"\n[fields."params.owner"]\nconstant = 1',
        "default = { owner = 1 }",
        "fields.params.default",
        "has the key 'owner'",
    ),
    Mistake(
        "a default that is no object",
        'copy = "payload"',
        'copy = "payload"\ndefault = []\nlossy = "x"\n[fields."params.owner"]\nconstant = 1',
        "default = []",
        "fields.params.default",
        "must be a table",
    ),
    Mistake(
        "a constant with a key in use",
        "[dropped]",
        '[fields.tags]\nconstant = { a = 1 }\n[fields."tags.a"]\nconstant = 1\n\n[dropped]',
        "constant = { a = 1 }",
        "fields.tags.constant",
        "has the key 'a'",
    ),
    Mistake(
        "a constant that is no object",
        "[dropped]",
        '[fields.tags]\nconstant = []\n[fields."tags.a"]\nconstant = 1\n\n[dropped]',
        "constant = []",
        "fields.tags.constant",
        "must be a table",
    ),
)
