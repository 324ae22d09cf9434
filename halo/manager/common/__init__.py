"""What the tasks of the manager share: the context, the journal, alarms, a limit."""
