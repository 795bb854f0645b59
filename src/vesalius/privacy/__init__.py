"""The door: what turns identified scans into de-identified cases, and the only way into a cohort."""
