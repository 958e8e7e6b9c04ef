"""The modes of locks on tables: which keep which away (PostgreSQL manual, 13.3.1, table "Conflicting Lock Modes")."""

from __future__ import annotations

from enum import Enum


class LockMode(Enum):
    """From weak to strong; the value is how SQL names it."""

    ACCESS_SHARE = "ACCESS SHARE"
    ROW_SHARE = "ROW SHARE"
    ROW_EXCLUSIVE = "ROW EXCLUSIVE"
    SHARE_UPDATE_EXCLUSIVE = "SHARE UPDATE EXCLUSIVE"
    SHARE = "SHARE"
    SHARE_ROW_EXCLUSIVE = "SHARE ROW EXCLUSIVE"
    EXCLUSIVE = "EXCLUSIVE"
    ACCESS_EXCLUSIVE = "ACCESS EXCLUSIVE"

    @classmethod
    def of_catalog(cls, name: str) -> LockMode:
        """By the name that pg_locks has, such as ShareRowExclusiveLock."""
        return next(one for one in cls if one.catalog_name == name)

    @property
    def catalog_name(self) -> str:
        return f"{self.value.title().replace(' ', '')}Lock"

    @property
    def ordinary(self) -> bool:
        """Whether those who read and write rows take it themselves, so that none of them waits for it."""
        return self in _ORDINARY

    def conflicts(self, other: LockMode) -> bool:
        return other in _CONFLICTS[self]

    @property
    def stops(self) -> tuple[str, ...]:
        """Who waits for it, in words."""
        return tuple(words for words, mode in _WHO.items() if self.conflicts(mode))


_AS, _RS, _RX, _SUX, _S, _SRX, _X, _AX = LockMode
_ORDINARY = frozenset({_AS, _RS, _RX})
_CONFLICTS: dict[LockMode, frozenset[LockMode]] = {
    _AS: frozenset({_AX}),
    _RS: frozenset({_X, _AX}),
    _RX: frozenset({_S, _SRX, _X, _AX}),
    _SUX: frozenset({_SUX, _S, _SRX, _X, _AX}),
    _S: frozenset({_RX, _SUX, _SRX, _X, _AX}),
    _SRX: frozenset({_RX, _SUX, _S, _SRX, _X, _AX}),
    _X: frozenset(set(LockMode) - {_AS}),
    _AX: frozenset(LockMode),
}
_WHO = {
    "reads": _AS,
    "SELECT FOR UPDATE": _RS,
    "writes": _RX,
    "VACUUM and ANALYZE": _SUX,
    "CREATE INDEX": _S,
    "DDL": _AX,
}
