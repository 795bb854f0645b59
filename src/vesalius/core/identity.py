"""What a card may say about patients: enough to refuse them later, nothing that leads back to them."""

from __future__ import annotations

import hashlib


def seen_hash(pseudonym: str) -> str:
    """Fingerprint of a patient's pseudonym for a card's `patients_seen`: 16 hexadecimal digits."""
    return hashlib.sha256(f"vesalius-patient:{pseudonym}".encode()).hexdigest()[:16]
