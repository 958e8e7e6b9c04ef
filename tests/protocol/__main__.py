"""Writes README.md."""

from tests.protocol.document import DOCUMENT, document

DOCUMENT.write_text(document(), encoding="utf-8")
