"""Published protocols as params of this project, ready to run where their data is at hand."""
