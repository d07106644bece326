"""What runs on workers: reading units, scoring them, and finding the pairs that kill a process."""
