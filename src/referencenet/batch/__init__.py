"""Many jobs: commands with their settings, one on each line of a file, drawn by several processes or machines."""

from referencenet.batch.commands import JobError
from referencenet.batch.jobs import Job, WrongJobs, read_jobs
from referencenet.batch.run import Result, run_batch

__all__ = ["Job", "JobError", "Result", "WrongJobs", "read_jobs", "run_batch"]
