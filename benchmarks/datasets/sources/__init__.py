"""Where the benchmark's image sets come from: a module a source, which writes a folder as a user would have it."""
