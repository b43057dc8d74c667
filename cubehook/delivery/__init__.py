"""The customer's side: which webhook gets which event, when, in what order, signed how."""
