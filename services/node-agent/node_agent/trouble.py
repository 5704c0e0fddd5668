"""What a network and a server may do to whoever talks to them; all of it passes."""

from __future__ import annotations

import nats.errors
from nats.js.errors import Error as JetStreamError

from sparring.errors import LogUnavailable

TROUBLE = (nats.errors.Error, JetStreamError, LogUnavailable, TimeoutError, OSError)
