"""The gateway's side: SOAP, XCC messages, registration, and what gateways call."""
