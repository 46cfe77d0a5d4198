"""This machine: environment, embedded servers, supervised processes."""
