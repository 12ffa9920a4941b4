"""`deepfill doctor`: what goes wrong before a training, found in about a minute.

Each check is a function of `machine`, `pictures`, `memory` or `training`; `examination` calls them
in order.
"""
