"""The console: one read-only page that shows models and deployments as they are now."""
