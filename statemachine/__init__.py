"""How evidence becomes state, and state becomes incidents: pure functions of their arguments.

No I/O, no clock, no randomness, no ids, no logging. Read `model`, `signals`, `machine`,
`evidence`, `policy`, `step`, in this order.
"""
