"""Numbers that hold elsewhere: records that a repository keeps, and runs held against them.

    frozen.py    the small folder of a run: `harness freeze`
    verify.py    whether a record still states what its files hold: `harness verify`
    against.py   whether a run has the numbers of a recorded one: `harness check --against`
    paired.py    two runs on the same prompts, item by item: `harness compare A B`

Nothing is imported here.
"""
