"""The protocol of capture, apply and backfill as a model that can be searched exhaustively; see README.md beside it."""
