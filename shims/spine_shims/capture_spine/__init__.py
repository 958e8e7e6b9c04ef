"""The tasks of capture-spine that bypass its dispatcher (seed 001), as shims under their old names.

Their runs are pipelines with the names of the application's ``PIPELINE_HANDLERS``, which it registers where its workers
find them (``register_pipeline(name)(handler)`` for each). Where one has no handler yet, its old body is executed, as a
run. What a run's params are, where the seed leaves parameters open (``such as``) by the signature of the old body:

=====================================================  =====================  =========================================
old task, in ``app.tasks``                             pipeline               params
=====================================================  =====================  =========================================
``batch_ingestion_tasks.batch_import_documents``       ``batch_import``       ``import_id``, such as ``documents``
``copilot_chat_sync.sync_copilot_chats``               ``copilot_sync``       such as ``workspace``, ``since``
``backup.schedule_pending_backups``                    ``backup``             ``pending``, which is true
``backup.run_backup_for_user``                         ``backup``             ``user_id``, such as ``backup_type``
``sync.sync_environments``                             ``sync_environments``  those of the call
``recommendations.update_recommendations``             ``recommendations``    such as ``model``, ``user_id``
=====================================================  =====================  =========================================
"""
