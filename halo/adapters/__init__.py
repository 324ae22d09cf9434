"""The real devices behind the ports: Cap'n Proto, TLS, fence programs, journal media."""
