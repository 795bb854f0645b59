"""The verbs, one file each: ingest, label, split, fit, evaluate, predict, show, demo."""
