"""The operator: events in, decisions from the pure rooms, server-side apply out."""
