"""The agent on every cluster host: runs OCF resource-agent scripts when told to."""
