"""Programs Envoy, holds requests for sleeping deployments and wakes them, and reports load."""
