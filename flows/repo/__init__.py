"""DVC and git: stages, remote, dataset and the branch of lock files. No Prefect."""
