"""`deepfill doctor`: a pre-flight check of a training run that takes about a minute.

Each check is a function in `machine`, `pictures`, `memory` or `training`; `examination` calls them
in order.
"""
