"""What operators use: logs, metrics, health."""
