"""What people see of a job: its plan, progress, report and ranking as a TREC run."""
