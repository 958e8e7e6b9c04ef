"""Moving history: batches in physical order, each with its checkpoint, its quarantine and its links in one
transaction.
"""
