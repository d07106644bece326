"""What people see of a job: its plan, progress, report, result in other forms, and evaluation."""
