"""Questions that are asked of an hour after it was built: checks, verification, scans, differences."""
