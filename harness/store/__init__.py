"""What was done: finished work by content, leases, digests, and the record of a run."""
