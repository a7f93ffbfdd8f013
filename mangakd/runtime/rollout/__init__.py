"""A rollout that can go back: a share of the questions goes to the student, the others to the incumbent.

`settings.py` reads the yaml, `front.py` stands before the service and asks a side, `compare.py` asks the other side in the
background, `sprt.py` tests, `plan.py` decides (raise, hold, roll back), `journal.py` keeps the decisions. A service without a
rollout imports nothing of this package.
"""
