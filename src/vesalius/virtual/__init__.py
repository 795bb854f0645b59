"""Invented patients with known truth: what the demo, the documents and the tests can try the house on."""
