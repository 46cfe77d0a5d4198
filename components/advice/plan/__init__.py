"""Planning: how long a run will take on this machine, before anything of it is computed."""
