"""The REST API: what each path takes and gives, and the listeners that serve it."""
