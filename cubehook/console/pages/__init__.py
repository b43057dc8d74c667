"""
The console's pages, a module for each place in it.

A module defines `Pages`, a class that is made with the `Desk` and whose methods are declared with
`cubehook.console.routes.page`.  All modules here are found and served.
"""
