"""Old import: ``from app.tasks.copilot_chat_sync import sync_copilot_chats``.
New import: ``from spine_shims.capture_spine.copilot_chat_sync import sync_copilot_chats``.
"""

from __future__ import annotations

from spine_shims.shipped import shipped

sync_copilot_chats = shipped("app.tasks.copilot_chat_sync.sync_copilot_chats", "copilot_sync")
