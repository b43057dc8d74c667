"""The web console: pages that show what the API tells, and forms that ask it for changes."""
