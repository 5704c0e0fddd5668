"""What a fork server imports once, so that every process of a test starts within milliseconds."""

import sparring.shell
from sparring.catalogue import services

SERVICES = {service.name: service for service in services()}
__all__ = ["SERVICES", "sparring"]
