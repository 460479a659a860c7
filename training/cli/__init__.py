"""Commands of `dposer` for researchers, one module a command."""
