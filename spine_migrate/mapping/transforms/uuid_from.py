"""Deterministic uuid: any key becomes a name-based UUIDv8 (RFC 9562, sections 5.8 and B.2), without an extension.

The 16 bytes are the first of SHA-256 over ``<namespace>:<key as text>`` in UTF-8, with version and variant set.
SHA-256 is in core PostgreSQL since 11 and allowed under FIPS, unlike MD5; SHA-1 (UUIDv5) would need pgcrypto.
"""

from __future__ import annotations

import hashlib
from typing import Any
from uuid import UUID

from psycopg import sql

from spine_migrate.mapping.transforms.base import Sql, Transform

# Bits as set_bit numbers them: 52 to 55 are the version nibble of byte 6, 70 and 71 the variant of byte 8.
_SET_BITS = ((52, 0), (53, 0), (54, 0), (55, 1), (70, 0), (71, 1))


# The types whose text is written the same way by the server and by Python.
_KEYS = ("text", "uuid", "integer", "bigint")


class UuidFrom(Transform):
    """Raises ValueError for a type that no key should have."""

    gives = "uuid"
    lossless = False
    invertible = False

    def __init__(self, given: str, namespace: str) -> None:
        if given not in _KEYS:
            raise ValueError(f"works on {', '.join(_KEYS)}, but is given {given}")
        self.given = given
        self.namespace = namespace

    @property
    def immutable(self) -> bool:
        """Whether an index can have it. The same bytes in every encoding of a server need no conversion, which is not
        immutable; a cast to bytea would take a backslash for more than that.
        """
        return self.given != "text" and self.namespace.isascii() and "\\" not in self.namespace

    def sql(self, value: Sql) -> Sql:
        name = sql.SQL("{} || {}::text").format(sql.Literal(f"{self.namespace}:"), value)
        octets = sql.SQL("({})::bytea" if self.immutable else "convert_to({}, 'UTF8')").format(name)
        digest: Sql = sql.SQL("substring(sha256({}) for 16)").format(octets)
        for bit, on in _SET_BITS:
            digest = sql.SQL("set_bit({}, {}, {})").format(digest, sql.Literal(bit), sql.Literal(on))
        return sql.SQL("encode({}, 'hex')::uuid").format(digest)

    def python(self, value: Any) -> Any:
        digest = bytearray(hashlib.sha256(f"{self.namespace}:{value}".encode()).digest()[:16])
        digest[6] = digest[6] & 0x0F | 0x80
        digest[8] = digest[8] & 0x3F | 0x80
        return UUID(bytes=bytes(digest))

    def inverse_sql(self, value: Sql) -> Sql:  # noqa: ARG002 - a hash does not come back
        return sql.SQL("NULL")

    def inverse_python(self, value: Any) -> Any:  # noqa: ARG002 - as above
        return None

    def doc(self) -> str:
        return f"UUIDv8 of `{self.namespace}:<key>` (SHA-256)"
