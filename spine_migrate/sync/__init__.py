"""Following an application's writes: capture of changed keys, and the applier that brings the target up to date."""
